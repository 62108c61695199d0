"""What is handed over: a student's weights with their record and their metrics, of one student, or it is refused."""

from pathlib import Path
from typing import Literal

import pydantic

from pipeline.base import config, errors, files, hashing
from pipeline.cache import read as cache_read
from pipeline.cache import schema
from pipeline.evaluate import schema as evaluate_schema
from pipeline.student import config as student_config
from pipeline.student import model

_TRAIN = "Train it again: dvc repro train; or restore it: dvc checkout"
_EVALUATE = "Evaluate it again: dvc repro evaluate"

_MAX_BYTES = 1 << 26  # of a record, or of the metrics of one student


class Start(config.Model):
    """Another student's weights that it began with."""

    sha256: str
    """Of their file."""
    heads: Literal["kept", "fresh"]
    """Whether they answered for the same classes."""


class Record(config.Model):
    """What a student's `record.json` tells of its making."""

    model_config = pydantic.ConfigDict(extra="ignore")

    student: student_config.Student
    """Its kind of distillation."""
    recipe: student_config.StudentConfig
    """Its model and how it learned."""
    weights_sha256: str
    """SHA-256 of its averaged weights, the ones that are handed over."""
    cache: schema.Recipe
    """What a row of its cache means: teacher, views, kept classes."""
    cache_fingerprint: str | None
    """Of that cache's recipe and extent (`cache.fingerprint`); none where the teacher was in the loop."""
    start: Start | None = None
    """Where it began, unless with initial weights."""
    aug_seeds: int
    """How many views of each image it used."""
    accepted: tuple[str, ...]
    """Refusals that its training went on in spite of."""
    tau_beyond_cache: str | None
    """What was said of a tau that the cache does not carry."""
    versions: dict[str, str]
    """Libraries and machine that trained it."""

    @property
    def architecture(self) -> str:
        """Name of the model in timm."""
        return self.recipe.distilled_architecture if self.student.has_token else self.recipe.architecture


def record(folder: Path) -> Record:
    """The record of a student whose weights are those it was made with.

    Raises:
        DataError: the record is missing or of another form, or the weights are another student's.
    """
    path = folder / "record.json"
    found = _parse(path, Record, _TRAIN)
    weights = folder / model.EMA
    try:
        here = hashing.sha256_file(weights)
    except OSError as error:
        raise errors.DataError(f"{weights}: cannot be read ({error.strerror}). {_TRAIN}") from error
    if here != found.weights_sha256:
        condition = f"that of its record, {found.weights_sha256}"
        raise errors.DataError(errors.refusal(weights, "sha256", condition, here, _TRAIN))
    return found


def evaluation(path: Path, of: Record, images: int) -> evaluate_schema.Evaluation:
    """The metrics of a student on so many images.

    Raises:
        DataError: they are missing or of another form, or tell of another student or of other images.
    """
    found = _parse(path, evaluate_schema.Evaluation, _EVALUATE)
    knobs = of.student.model_dump(mode="json", include={"model", "kind", "alpha", "tau", "seed"})
    wanted = {
        "student": evaluate_schema.Knobs(**knobs, token=of.student.has_token),
        "architecture": of.architecture,
        "classes": of.cache.teacher.num_classes,
        "images": images,
    }
    for name, value in wanted.items():
        if getattr(found, name) != value:
            condition = f"that of the student and the shards, {value}"
            raise errors.DataError(errors.refusal(path, name, condition, getattr(found, name), _EVALUATE))
    return found


def require_teacher(cache: cache_read.Cache, of: Record) -> None:
    """Refuse a store of the validation split that another teacher answered.

    Raises:
        IdentityError: the teacher is not the one that taught the student.
    """
    taught, here = of.cache.teacher, cache.recipe.teacher
    if taught != here:
        condition, cure = f"the student's, {taught.weights_sha256}", "Name the store beside the one it was trained from"
        raise errors.IdentityError(errors.refusal(cache.path, "teacher", condition, here.weights_sha256, cure))


def _parse(path: Path, model: type[config.M], cure: str) -> config.M:
    try:
        return config.parse(files.read_json(path, _MAX_BYTES), model, str(path))
    except (OSError, ValueError) as error:
        raise errors.DataError(f"{path}: cannot be read ({error}). {cure}") from error
    except errors.ConfigError as error:
        raise errors.DataError(f"{error}. {cure}") from error
