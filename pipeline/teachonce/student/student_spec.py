"""A student: its entry under `students:` in params.yaml, and the training configuration that the entry names."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from teachonce.core import config, errors, project_params, spelling
from teachonce.store import tau_range
from teachonce.store.acceptance import Acceptable
from teachonce.student import train_config

_MOST_LETTERS = 64
NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{_MOST_LETTERS - 1}}}")
"""Of a student: what neither YAML, nor DVC, nor a shell, nor a file system takes for anything but a word."""
EMA = "model.safetensors"
"""Averaged weights in a student's folder."""
_YAML_CONSTANTS = frozenset({"true", "false", "null"})


class StartFile(config.Model):
    """Another student's weights to begin with, at any size (`student.fine_tuning`)."""

    path: str
    """The folder of a student, whose averaged weights are meant, or a safetensors file in timm's names."""
    sha256: config.Sha256
    """Of the file: what a run is of and what DVC compares, so that other bytes under the same name are refused."""

    def file(self) -> Path:
        """The file that a student begins with."""
        path = Path(self.path)
        return path / EMA if os.path.isdir(path) else path  # noqa: PTH112 - a name may be too long for Path.is_dir


_UNUSED: dict[str, float | str | None] = {
    "alpha": None,
    "tau": None,
    "kl_scale": "batchmean",
    "teacher_smoothing": 0.0,
    "weight": 1.0,
    "k": None,
    "max_tv": tau_range.BOUND,
}
"""Keys that not every kind has, each with what a stored entry says where its kind has no use for it."""


class _AnyKind(config.Model):
    """What an entry has whatever its kind."""

    model: str
    """File name in configs/student, without the ending."""
    seed: int = 0
    """Initial weights, order and stochastic depth."""
    start: StartFile | None = None
    """Fine-tune these weights; by default all are initial ones."""
    token: bool | None = None
    """Whether the model has a distillation token; by default, whether it distils."""
    accept: tuple[Acceptable, ...] = ()
    """Refusals to go on with, on purpose (`store.acceptance.Acceptable`): said loudly, and written into the student's
    record."""


class PlainSpec(_AnyKind):
    """A student that learns from labels alone."""

    kind: Literal["none"]
    """Selects this form."""

    @property
    def has_token(self) -> bool:
        """Whether the model has a distillation token."""
        return bool(self.token)


class _Distilling(_AnyKind):
    """A student that learns from the teacher, too."""

    alpha: float = pydantic.Field(ge=0, le=1)
    """Weight of the teacher's part: total = (1 − alpha) · label + alpha · teacher."""

    @property
    def has_token(self) -> bool:
        """Whether the model has a distillation token."""
        return self.token is None or self.token


class SoftSpec(_Distilling):
    """A student that learns the teacher's distribution at tau."""

    kind: Literal["soft"]
    """Selects this form."""
    tau: float = pydantic.Field(gt=0, le=100)
    """Temperature. A row's log-probabilities are float16, from 8 to 16 in steps of 1/128: at 100, a step still moves a
    probability by 8e-5 of itself; at 1e5, by no more than float32 resolves, and at 1e8 the whole row moves none by
    more, so that a student would learn rounding."""
    kl_scale: Literal["batchmean", "numel"] = "batchmean"
    """`numel` divides the KL divergence by the number of classes too, as facebookresearch/deit does."""
    weight: float = pydantic.Field(default=1.0, gt=0)
    """Factor of the teacher's part: 2 gives (1 − alpha) · CE + 2 · alpha · tau² · KL."""
    k: int | None = pydantic.Field(default=None, ge=1)
    """Use only the k likeliest classes of each row; by default all that the cache kept."""
    max_tv: float = pydantic.Field(default=tau_range.BOUND, gt=0, le=1)
    """Warn where rows are further than this from the teacher's full softmax at tau, in mean total variation."""


class HardSpec(_Distilling):
    """A student that learns the teacher's likeliest class."""

    kind: Literal["hard"]
    """Selects this form."""
    teacher_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Smoothing of the teacher's class."""


SPECS = (PlainSpec, SoftSpec, HardSpec)
_KINDS: dict[str, type[_AnyKind]] = {"none": PlainSpec, "soft": SoftSpec, "hard": HardSpec}
StudentSpec = Annotated[PlainSpec | SoftSpec | HardSpec, pydantic.Field(discriminator="kind")]
"""One entry of `students:`: which model, and how the teacher's answers enter its loss."""


_KEYS = (
    *("model", "kind", "alpha", "tau", "seed", "start", "token"),
    *("kl_scale", "teacher_smoothing", "weight", "k", "max_tv", "accept"),
)
"""Of all kinds, in the order in which people read them."""


class StudentEntry(pydantic.RootModel[StudentSpec]):
    """An entry of any kind, as `config.parse` reads it."""


def drop_unused_keys(entry: object, where: str, key: str) -> object:
    """An entry without the keys of other kinds that say nothing, such as a stored one has (`all_keys`).

    Args:
        entry: plain data; whatever has no kind is left as it is.
        where: its origin, for messages.
        key: of the entry there.

    Raises:
        ConfigError: a key of another kind says something.
    """
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(kind, str) or kind not in _KINDS:
        return entry
    foreign = {name for name in entry if name in _UNUSED and name not in _KINDS[kind].model_fields}
    problems = []
    for name in sorted(foreign):
        if entry[name] != _UNUSED[name] or isinstance(entry[name], bool):
            owners = [owner for owner, spec in _KINDS.items() if name in spec.model_fields]
            belongs = f"belongs to kind{'s' if len(owners) > 1 else ''} {' and '.join(owners)}"
            what = f"{key}.{name} {belongs}; kind {kind} has no use for it"
            problems.append(errors.ConfigError(where, what, "Remove it"))
    errors.raise_problems(problems)
    return {name: value for name, value in entry.items() if name not in foreign}


def all_keys(spec: StudentSpec) -> dict[str, object]:
    """An entry as plain data with the keys of every kind, as it is stored and as a run's name hashes it."""
    # Records and cards tell all keys, whatever the kind: two of them can be compared line by line.
    values = {**_UNUSED, **spec.model_dump(mode="json")}
    return {key: values[key] for key in _KEYS}


@dataclass(frozen=True, slots=True)
class Student:
    """All that is chosen of one student: what it learns from, and how it is trained."""

    name: str
    """Its key under `students:`, for messages."""
    spec: StudentSpec
    """Its entry there."""
    config: train_config.TrainConfig
    """What `configs/student/{spec.model}.yaml` says."""

    @property
    def architecture(self) -> str:
        """Name of its model in timm."""
        return self.config.timm_name(has_token=self.spec.has_token)


def require_name(params: Path, name: object) -> None:
    """Refuse what is no name of a student: it stands in a stage's name, in paths and in a command.

    Raises:
        ConfigError: it is none.
    """
    # YAML reads an unquoted `true` or `null` as a value, not as a word: as a name it would be another thing there.
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower() in _YAML_CONSTANTS:
        condition = f"named with a letter, then at most {_MOST_LETTERS - 1} letters, digits, _ and -"
        cure = f"Rename it, for instance: {_renamed(str(name))}"
        raise errors.ConfigError.for_value(
            params, f"students.{errors.shorten(str(name))}", condition, errors.quote_value(name), cure
        )


def _renamed(name: str) -> str:
    stem = re.sub("[^A-Za-z0-9_]+", "-", name).strip("-")[: _MOST_LETTERS // 2]
    return stem if NAME.fullmatch(stem) and stem.lower() not in _YAML_CONSTANTS else f"student-{stem}".strip("-")


def parse_spec(entry: object, params: Path, name: str) -> StudentSpec:
    """An entry of `students:` as what its kind allows.

    Args:
        entry: plain data.
        params: params.yaml, for messages.
        name: of the student, likewise.

    Raises:
        ConfigError: a value is refused.
    """
    where, key = str(params), f"students.{errors.shorten(name)}"
    return config.parse(drop_unused_keys(entry, where, key), StudentEntry, where, key).root


def read_spec(params: Path, name: str) -> StudentSpec:
    """The entry of one student in params.yaml.

    Raises:
        ConfigError: there is no such student, or one of its values is refused.
    """
    data = project_params.read(params)
    students = data.get("students") if isinstance(data, dict) else None
    if not name and isinstance(students, dict) and name not in students:
        condition = f"the name of an entry under students: {errors.shorten(', '.join(students))}"
        raise errors.ConfigError.for_value(params, "--student", condition, "nothing", "Name one")
    if not isinstance(students, dict) or name not in students:
        near = spelling.did_you_mean(name, students) if isinstance(students, dict) else ""
        raise errors.ConfigError(
            params,
            f"students.{name} is missing",
            f"Add it, for instance: {name}: {{model: deit_micro, kind: none}}{near and f'.{near}'}",
        )
    require_name(params, name)
    return parse_spec(students[name], params, name)


def read(chosen: project_params.ConfigChoices, name: str, config_path: Path | None = None) -> Student:
    """A student of params.yaml with the training configuration that it names.

    Args:
        chosen: params.yaml and the folder of configurations.
        name: of the student.
        config_path: another file than the one that the entry names.

    Raises:
        ConfigError: there is no such student or file, or a value in one of them is refused.
    """
    spec = read_spec(chosen.params, name)
    path = chosen.recipe(spec.model, name, config_path)
    return Student(name, spec, config.load(path, train_config.TrainConfig))
