"""A student's folder, as training leaves it: the record of its making, and the weights that are of that record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pydantic

from teachonce.core import config, errors, sealed_files
from teachonce.format import schema
from teachonce.student import student_config, student_model

_REFUSAL = sealed_files.Refusal(errors.DataError, "Train it again: dvc repro train; or restore it: dvc checkout")


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
    """SHA-256 of its averaged weights, the ones that are evaluated and handed over."""
    raw_weights_sha256: str
    """SHA-256 of its weights that are not averaged."""
    cache: schema.Recipe
    """What a row of its cache means: teacher, views, kept classes."""
    cache_fingerprint: str | None
    """Of that cache (`store.fingerprint`); none where the teacher was in the loop."""
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


@dataclass(frozen=True, slots=True)
class Trained:
    """A student that was trained."""

    record: Record
    """Of its making."""
    weights: bytes
    """The safetensors file of its averaged weights, verified."""


def read(folder: Path) -> Trained:
    """Record and averaged weights of a student.

    Raises:
        DataError: the record is missing, changed or of another form, or the weights are others.
    """
    found = record(folder / student_model.RECORD)
    wanted = "that of its record, "
    return Trained(
        found, sealed_files.read_verified(folder / student_model.EMA, found.weights_sha256, wanted, _REFUSAL)
    )


def record(path: Path, refusal: sealed_files.Refusal = _REFUSAL) -> Record:
    """What a `record.json` tells.

    Raises:
        TeachonceError: it is missing, changed or of another form.
    """
    data = sealed_files.read_with_digest(path, refusal)
    try:
        return config.parse(data, Record, str(path))
    except errors.ConfigError as error:
        raise refusal.error.from_error(error, refusal.cure) from error
