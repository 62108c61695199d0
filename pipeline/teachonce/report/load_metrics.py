"""Read what the stages left: only files that params.yaml's list of students names, never what happens to lie there."""

import csv
import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pydantic

from teachonce.core import config, errors, files, run_record
from teachonce.evaluate import evaluation_record

CURVES = ("loss", "label_loss", "teacher_loss", "top1")
_OF_LABELS = ("label_loss", "top1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_REMAKE = "Make it: dvc repro"
_MAX_BYTES = 1 << 28  # of a file: a curve of millions of steps

Curve = tuple[list[int], list[float]]
"""Steps, rising, and the value at each of them."""


class _Lenient(config.Model):
    # A record may tell more than a report shows, and gain fields that an older report does not know.
    model_config = pydantic.ConfigDict(extra="ignore")


class StoreMetrics(_Lenient):
    """What the record of the stage `cache` says of one store."""

    views: int = pydantic.Field(ge=1)
    """Count of views that the teacher answered: rows."""
    bytes: int
    """Size of the store on disk."""
    bytes_a_view: float
    """Size of the store, divided by its views."""
    files: int
    """Count of the store's files."""
    teacher_top1: float | None = None
    """Share of the labelled views whose label is the teacher's likeliest class; none where there are none."""
    fidelity: dict[str, dict[str, float]]
    """Distances to the full softmax by `k=…,tau=…`; empty where rows are whole."""


class CacheMetrics(_Lenient):
    """The record of the stage `cache`: both stores."""

    train: StoreMetrics
    """Augmented views of the training images."""
    val: StoreMetrics
    """Evaluation views of the validation images."""


class TeacherMetrics(_Lenient):
    """The record of the stage `teacher`, as far as a report shows it."""

    architecture: str
    """timm's name of the model."""
    parameters: int
    """Count of single weights."""


class SplitCounts(_Lenient):
    """What the record of the stage `prepare` says of one split."""

    samples: int
    """Count of images."""
    unlabelled: int = 0
    """How many of them have no label."""
    tars: int
    """Count of tars that hold them."""
    bytes: int
    """Size of the tars."""


class DatasetMetrics(_Lenient):
    """The record of the stage `prepare`: what the images are."""

    classes: int
    """Count of classes."""
    train: SplitCounts
    """Images the students learn from."""
    val: SplitCounts
    """Images everyone is measured on."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """What the last run of a stage took."""

    stage: str
    """The stage, and the student it was for."""
    wall_s: float
    """Wall time in seconds."""
    cpus: int
    """Processors of the machine that it ran on."""
    facts: dict[str, int]
    """Counts that explain the time, by their names in words: `train units reused`."""
    forward: run_record.ForwardSpeed | None = None
    """How quickly its network answers, where the stage measured that."""


@dataclass(frozen=True, slots=True)
class StageMetrics:
    """All numbers of a report; pictures and predictions are read apart."""

    data: DatasetMetrics
    """Counts of images and tars."""
    teacher: TeacherMetrics
    """Which network the teacher is."""
    stores: CacheMetrics
    """Size and fidelity of both stores."""
    students: dict[str, evaluation_record.Evaluation]
    """Evaluations by student, in the order of params.yaml."""
    curves: dict[str, dict[str, Curve]]
    """Training curves by student and name of the curve."""
    costs: tuple[StageCost, ...]
    """Of the stages that ran here, in the order of the pipeline."""


def read_students(params: Path) -> dict[str, object]:
    """The students of params.yaml by name, in its order.

    Raises:
        ConfigError: there are none, or a name is refused.
    """
    data = config.read(params)
    entries = data.get("students") if isinstance(data, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise errors.ConfigError(params, "students is missing", "Add one, for instance: plain: {kind: none, …}")
    # A name becomes a part of paths that are read: nothing in it may lead out of the folder.
    for name in entries:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise errors.ConfigError.for_value(
                params, f"students.{name}", "named with letters, digits, _ and -", name, "Rename it"
            )
    return entries


def collect(records: Path, costs: Path, curves: Path, names: Collection[str]) -> StageMetrics:
    """Read the records, costs and curves of all stages.

    Args:
        records: folder of what they say of their results.
        costs: folder of what they cost.
        curves: folder of the students' training curves.
        names: of the students.

    Raises:
        DataError: a file is missing or not of the expected form.
    """
    evaluations = {
        name: read_model(records / "evaluate" / f"{name}.json", evaluation_record.Evaluation) for name in names
    }
    data = read_model(records / "prepare.json", DatasetMetrics)
    return StageMetrics(
        data=data,
        teacher=read_model(records / "teacher.json", TeacherMetrics),
        stores=read_model(records / "cache.json", CacheMetrics),
        students=evaluations,
        curves={name: _curves(curves / name, evaluations[name].student.kind, data.train) for name in names},
        costs=read_costs(costs, names),
    )


def read_costs(folder: Path, names: Collection[str]) -> tuple[StageCost, ...]:
    """What each stage took, in the order of the pipeline; without stages that ran elsewhere, whose cost is not here.

    Raises:
        DataError: a record is not of the expected form.
    """
    paths = {stage: folder / f"{'/'.join(stage.split())}.json" for stage in _stages(names)}
    return tuple(_cost(stage, path) for stage, path in paths.items() if path.exists())


def _stages(names: Collection[str]) -> list[str]:
    """What has a cost: stages, with the student where there is one for each."""
    return ["prepare", "teacher", "cache", *(f"{stage} {name}" for stage in ("train", "evaluate") for name in names)]


def ran_elsewhere(costs: Collection[StageCost], names: Collection[str]) -> list[str]:
    """Stages whose cost is not here, as in a clone that fetched their results alone."""
    present = {cost.stage for cost in costs}
    return [stage for stage in _stages(names) if stage not in present]


def _cost(stage: str, path: Path) -> StageCost:
    data = _json(path)
    if not isinstance(data, dict) or not isinstance(data.get("wall_s"), int | float):
        raise errors.DataError(path, "wall_s is missing", _REMAKE)
    facts = _flat({name: value for name, value in data.items() if name not in ("wall_s", "cpus", "forward")})
    forward = _parse(data["forward"], run_record.ForwardSpeed, path) if "forward" in data else None
    return StageCost(stage, float(data["wall_s"]), int(data.get("cpus") or 1), facts, forward)


def _flat(data: dict[str, object], prefix: str = "") -> dict[str, int]:
    """Counts of nested maps by their path, in words."""
    counts: dict[str, int] = {}
    for name, value in data.items():
        words = f"{prefix} {name.replace('_', ' ')}".strip()
        if isinstance(value, dict):
            counts |= _flat(value, words)
        elif isinstance(value, int):
            counts[words] = value
    return counts


def _curves(live: Path, kind: str, data: SplitCounts) -> dict[str, Curve]:
    folder = live / "plots" / "metrics"
    names = [curve for curve in CURVES if curve != "teacher_loss" or kind != "none"]
    # A step without a labelled image gives no point of these.
    absent = {curve for curve in _OF_LABELS if data.unlabelled and not (folder / f"{curve}.tsv").exists()}
    return {curve: _curve(folder / f"{curve}.tsv", curve) for curve in names if curve not in absent}


def read_curves(live: Path) -> dict[str, Curve]:
    """Those training curves of a student that are there, from DVCLive's folder.

    Raises:
        DataError: one of them is damaged.
    """
    paths = {name: live / "plots" / "metrics" / f"{name}.tsv" for name in CURVES}
    return {name: _curve(path, name) for name, path in paths.items() if path.exists()}


def _curve(path: Path, name: str) -> Curve:
    try:
        text = files.read_bytes(path, _MAX_BYTES).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
        return [int(row["step"]) for row in rows], [float(row[name]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise errors.DataError(path, f"is not a curve of DVCLive ({error})", f"{_REMAKE} train") from error


def _json(path: Path) -> object:
    try:
        return files.read_json(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise errors.DataError(path, f"cannot be read ({error})", f"{_REMAKE}; or fetch it: dvc pull {path}") from error


def read_model(path: Path, model: type[config.M]) -> config.M:
    """A JSON file as `model`.

    Raises:
        DataError: it is missing or not of the expected form.
    """
    return _parse(_json(path), model, path)


def _parse(data: object, model: type[config.M], path: Path) -> config.M:
    try:
        return config.parse(data, model, str(path))
    except errors.ConfigError as error:
        raise errors.DataError.from_error(error, _REMAKE) from error
