"""`record.json` of a student's folder: how it was made, by which its weights are known; written and read here alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pydantic

from teachonce.core import config, errors, sealed_files
from teachonce.format import schema
from teachonce.student import student_model, student_spec, train_config

NAME = "record.json"
_REFUSAL = sealed_files.Refusal(errors.DataError, "Train it again: dvc repro train; or restore it: dvc checkout")


class StartRecord(config.Model):
    """Another student's weights that it began with."""

    sha256: config.Sha256
    """Of their file."""
    heads: Literal["kept", "fresh"]
    """Whether they answered for the same classes."""


class ArithmeticRecord(config.Model):
    """What decided how sums were rounded."""

    model_config = pydantic.ConfigDict(extra="ignore")

    device: str
    """cpu or cuda."""
    precision: str
    """Of the forward pass."""
    compiled: bool
    """Whether torch compiled the network."""
    deterministic: bool
    """Whether all sums were added in one order."""
    tf32: Literal[False]
    """Never, on a GPU either (`arithmetic.use_exact_float32`)."""


class TeacherRecord(config.Model):
    """Who taught a student, and on what terms."""

    model_config = pydantic.ConfigDict(extra="ignore")

    cache: schema.Recipe
    """What a row of its cache means: teacher, views, kept classes."""
    cache_fingerprint: str | None
    """Of that cache (`store.fingerprint`); none where the teacher was in the loop."""
    accepted: tuple[str, ...]
    """Refusals that its training went on in spite of."""
    tau_beyond_cache: str | None
    """What was said of a tau that the cache does not carry."""


class KeptWeights(config.Model):
    """Averaged weights of a moment of a run."""

    passes: int
    """Passes over the images that had begun."""
    step: int
    """Steps that made them."""
    sha256: config.Sha256
    """Of their file."""


class StudentRecord(TeacherRecord):
    """How a student was made: format 1 of a `record.json`."""

    format: Literal[1] = pydantic.Field(default=1, exclude=True)
    """Version of this form; a record without it has the first one."""
    student: student_spec.StudentSpec
    """Its entry in params.yaml."""
    recipe: train_config.TrainConfig
    """Its model and how it learned."""
    weights_sha256: config.Sha256
    """SHA-256 of its averaged weights, the ones that are evaluated and handed over."""
    raw_weights_sha256: config.Sha256
    """SHA-256 of its weights that are not averaged."""
    kept_weights: tuple[KeptWeights, ...] = ()
    """Of the student on its way, and last the finished one; none in records of before they were kept."""
    start: StartRecord | None = None
    """Where it began, unless with initial weights."""
    aug_seeds: int
    """How many views of each image it used."""
    arithmetic: ArithmeticRecord | None = None
    """Where it was trained; none in records of before it was told."""
    versions: dict[str, str]
    """Libraries and machine that trained it."""

    @pydantic.field_serializer("student")
    def _with_all_keys(self, spec: student_spec.StudentSpec) -> dict[str, object]:
        return student_spec.all_keys(spec)

    @property
    def architecture(self) -> str:
        """Name of the model in timm."""
        return self.recipe.timm_name(has_token=self.student.has_token)

    def named(self, name: str) -> student_spec.Student:
        """The student that was trained, under a name for messages."""
        return student_spec.Student(name, self.student, self.recipe)


@dataclass(frozen=True, slots=True)
class TrainedStudent:
    """A student's folder, verified."""

    record: StudentRecord
    """Of its making."""
    weights: bytes
    """The safetensors file of its averaged weights, verified."""


def write_record(folder: Path, record: StudentRecord) -> None:
    """Write a record with its own digest, the last file of a student's folder."""
    sealed_files.write_with_digest(folder / NAME, record.model_dump(mode="json"))


def read(folder: Path) -> TrainedStudent:
    """Record and averaged weights of a student.

    Raises:
        DataError: the record is missing, changed or of another form, or the weights are others.
    """
    # The record proves itself by its own digest; the weights are then proved by the record's, in one reading.
    record = read_record(folder / NAME)
    whose = "that of its record, "
    weights = sealed_files.read_verified(folder / student_model.EMA, record.weights_sha256, whose, _REFUSAL)
    return TrainedStudent(record, weights)


def read_record(path: Path, refusal: sealed_files.Refusal = _REFUSAL) -> StudentRecord:
    """What a `record.json` tells.

    Raises:
        TeachonceError: it is missing, changed or of another form.
    """
    data = sealed_files.read_with_digest(path, refusal)
    try:
        # Stored entries have the keys of every kind (`all_keys`); an entry is read as its kind alone allows.
        if "student" in data:
            data["student"] = student_spec.drop_unused_keys(data["student"], str(path), "student")
        return config.parse(data, StudentRecord, str(path))
    except errors.ConfigError as error:
        raise refusal.error.from_error(error, refusal.cure) from error
