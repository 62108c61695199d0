"""What a student is and how it learns: `configs/student/*.yaml`, and its knobs under `students:` in params.yaml."""

import os
import re
from pathlib import Path
from typing import Literal

import pydantic

from teachonce.core import config, errors, project_params, spelling
from teachonce.store import tau_range
from teachonce.store.acceptance import Acceptable

_MOST_LETTERS = 64
NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{_MOST_LETTERS - 1}}}")
"""Of a student: what neither YAML, nor DVC, nor a shell, nor a file system takes for anything but a word."""
EMA = "model.safetensors"
"""Averaged weights in a student's folder."""
_WORDS = frozenset({"true", "false", "null"})
FREE = frozenset({"workers", "launcher", "checkpoint_every"})
"""Fields of a recipe that say how it is run, not what comes out."""


class Launcher(config.Model):
    """Training processes of this machine, one a GPU: `train` starts them with torchrun."""

    processes: int = pydantic.Field(ge=1)
    """How many; lanes must be a multiple of processes × workers."""
    max_restarts: int = pydantic.Field(default=0, ge=0)
    """How often all of them start again from the last checkpoint after one has died."""


class StudentConfig(config.Model):
    """A DeiT and its training recipe; the same for every kind of distillation, so that students compare."""

    architecture: str
    """timm's model without a distillation token, for students that have none."""
    distilled_architecture: str
    """timm's model with class and distillation token."""
    arguments: config.TimmArguments = pydantic.Field(default={})
    """Further arguments of `timm.create_model`, the same for both."""
    size: int = pydantic.Field(ge=8, le=4096)
    """Side of the square input in pixels."""
    mean: config.Means
    """Subtracted from pixels scaled to 0…1."""
    std: config.Deviations
    """Divides what is left."""
    epochs: int = pydantic.Field(ge=1)
    """Length of the run."""
    epoch: Literal["images", "views"] = "images"
    """images: an epoch is a pass over all images, each with all of the policy's repeats; views: an epoch has as many
    views as there are images, as DeiT counts, so that a pass takes as many epochs as there are repeats."""
    batch_size: int = pydantic.Field(ge=1)
    """Views of a step, over all processes: a multiple of lanes × repeats, and of twice that where the policy mixes."""
    lanes: int = pydantic.Field(default=4, ge=1)
    """Streams a pass is cut into; any count of loader workers that divides it gives the same order of samples."""
    buffer: int = pydantic.Field(default=1000, ge=1)
    """Images, or pairs of them where the policy mixes, that each lane shuffles among."""
    workers: int = pydantic.Field(default=0, ge=0)
    """Loader processes of a training process; 0 loads in it, which suits small images on few cores."""
    accumulate: int = pydantic.Field(default=1, ge=1)
    """Parts in which a training process puts its share of a batch through the network: less memory, the same
    gradient."""
    launcher: Launcher | None = None
    """Several training processes; by default this one alone."""
    checkpoint_every: int = pydantic.Field(default=1000, ge=1)
    """Steps between two checkpoints; there is one at the end of each pass too."""
    lr: config.PeakRate
    """Peak learning rate of AdamW, for a batch of `lr_batch` where that is given."""
    lr_batch: int | None = pydantic.Field(default=None, ge=1)
    """Views of the batch that `lr` is for: the peak grows in step with batch_size, `lr` × batch_size / lr_batch. DeiT's
    is 512. By default `lr` is the peak, whatever the batch."""
    min_lr: config.Rate = 1e-5
    """Where the cosine ends; not scaled."""
    warmup_lr: config.Rate = 1e-6
    """Where the linear warm-up begins; not scaled."""
    warmup_epochs: int = pydantic.Field(default=5, ge=0)
    """Length of the warm-up."""
    weight_decay: config.Decay = 0.05
    """AdamW's; not applied to biases, norms, tokens and positions."""
    smoothing: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Smoothing of the ground-truth label."""
    drop_path: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Stochastic depth of the last block; earlier ones less, linearly."""
    ema_decay: float = pydantic.Field(default=0.99996, ge=0, lt=1)
    """Of the average of weights that is evaluated; warms up from 0."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass; weights stay float32."""
    compile: bool = False
    """Whether the network is compiled (torch.compile): quicker steps on a GPU, after a minute at the start. It rounds
    otherwise, so that it is part of what a run is of."""
    deterministic: bool = True
    """Whether a GPU adds in one order, so that a run that was killed ends as one that was not, to the bit. Quicker
    without; a CPU always does."""
    log_every: int = pydantic.Field(default=20, ge=1)
    """Steps between two points of the curves."""

    @pydantic.field_validator("arguments")
    @classmethod
    def _has_no_second_drop_path(cls, value: dict[str, object]) -> dict[str, object]:
        if "drop_path_rate" in value:
            raise ValueError("drop_path_rate is set by drop_path")
        return value

    @pydantic.model_validator(mode="after")
    def _divides(self) -> "StudentConfig":
        if self.batch_size % self.lanes:
            raise ValueError(f"batch_size must be a multiple of lanes, {self.lanes}")
        if self.workers and self.lanes % self.workers:
            raise ValueError(f"lanes must be a multiple of workers, {self.workers}")
        streams = max(1, self.workers) * (self.launcher.processes if self.launcher else 1)
        if self.lanes % streams:
            raise ValueError(f"lanes must be a multiple of launcher.processes × workers, {streams}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs, {self.epochs}")
        if self.peak_lr > 1:
            raise ValueError(f"lr × batch_size / lr_batch must be at most 1, not {self.peak_lr:g}")
        return self

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of the warm-up.

        Source: Goyal et al. 2017 (arXiv 1706.02677), the linear rule; facebookresearch/deit `main.py`, which scales
        neither end of the schedule.
        """
        return self.lr if self.lr_batch is None else self.lr * self.batch_size / self.lr_batch


_NEEDED: dict[str, tuple[str, ...]] = {"none": (), "soft": ("alpha", "tau"), "hard": ("alpha",)}


class Start(config.Model):
    """Another student's weights to begin with, at any size (`student.fine_tuning`)."""

    path: str
    """The folder of a student, whose averaged weights are meant, or a safetensors file in timm's names."""
    sha256: str = pydantic.Field(pattern="^[0-9a-f]{64}$")
    """Of the file: what a run is of and what DVC compares, so that other bytes under the same name are refused."""


def weights_file(start: Start) -> Path:
    """The file that a student begins with."""
    path = Path(start.path)
    return path / EMA if os.path.isdir(path) else path  # noqa: PTH112 - a name may be too long for Path.is_dir


class Student(config.Model):
    """One entry of `students:`: which model, and how the teacher's answers enter its loss."""

    model: str
    """File name in configs/student, without the ending."""
    kind: Literal["none", "soft", "hard"]
    """none: labels alone; soft: the teacher's distribution at tau; hard: its likeliest class."""
    alpha: float | None = pydantic.Field(default=None, ge=0, le=1)
    """Weight of the teacher's part: total = (1 − alpha) · label + alpha · teacher."""
    tau: float | None = pydantic.Field(default=None, gt=0, le=100)
    """Temperature of soft distillation. A row's log-probabilities are float16, from 8 to 16 in steps of 1/128: at 100,
    a step still moves a probability by 8e-5 of itself; at 1e5, by no more than float32 resolves, and at 1e8 the whole
    row moves none by more, so that a student would learn rounding."""
    seed: int = 0
    """Initial weights, order and stochastic depth."""
    start: Start | None = None
    """Fine-tune these weights; by default all are initial ones."""
    token: bool | None = None
    """Whether the model has a distillation token; by default, whether it distils."""
    kl_scale: Literal["batchmean", "numel"] = "batchmean"
    """`numel` divides the KL divergence by the number of classes too, as facebookresearch/deit does."""
    teacher_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Smoothing of the teacher's class in hard distillation."""
    weight: float = pydantic.Field(default=1.0, gt=0)
    """Factor of the soft part: 2 gives (1 − alpha) · CE + 2 · alpha · tau² · KL."""
    k: int | None = pydantic.Field(default=None, ge=1)
    """Use only the k likeliest classes of each row; by default all that the cache kept."""
    max_tv: float = pydantic.Field(default=tau_range.BOUND, gt=0, le=1)
    """Warn where rows are further than this from the teacher's full softmax at tau, in mean total variation."""
    accept: tuple[Acceptable, ...] = ()
    """Refusals to go on with, on purpose (`cache.accept.Acceptable`): said loudly, and written into the student's
    record."""

    @pydantic.model_validator(mode="after")
    def _kind_has_its_knobs(self) -> "Student":
        needed = _NEEDED[self.kind]
        for name in ("alpha", "tau"):
            if (getattr(self, name) is not None) != (name in needed):
                raise ValueError(f"kind {self.kind} needs {' and '.join(needed) or 'neither alpha nor tau'}")
        for name in ("weight", "kl_scale", "k", "max_tv"):
            if self.kind != "soft" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} belongs to kind soft; kind {self.kind} has no use for it")
        if self.kind != "hard" and self.teacher_smoothing:
            raise ValueError(f"teacher_smoothing belongs to kind hard; kind {self.kind} has no use for it")
        return self

    @property
    def has_token(self) -> bool:
        """Whether the model has a distillation token."""
        return self.kind != "none" if self.token is None else self.token


def require_name(params: Path, name: object) -> None:
    """Refuse what is no name of a student: it stands in a stage's name, in paths and in a command.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower() in _WORDS:
        condition = f"named with a letter, then at most {_MOST_LETTERS - 1} letters, digits, _ and -"
        cure = f"Rename it, for instance: {_renamed(str(name))}"
        raise errors.ConfigError.for_value(
            params, f"students.{errors.shorten(str(name))}", condition, errors.quote_value(name), cure
        )


def _renamed(name: str) -> str:
    kept = re.sub("[^A-Za-z0-9_]+", "-", name).strip("-")[: _MOST_LETTERS // 2]
    return kept if NAME.fullmatch(kept) and kept.lower() not in _WORDS else f"student-{kept}".strip("-")


def student(params: Path, name: str) -> Student:
    """One student of params.yaml.

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
    return config.parse(students[name], Student, str(params), f"students.{name}")
