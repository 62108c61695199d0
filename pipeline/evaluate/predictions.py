"""Predictions as a file: one int32 array for each way to answer, in the row order of the validation split.

With what they were made on, so that predictions of different data are never compared.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydantic
import safetensors
import safetensors.numpy

from pipeline.base import config, errors, files, hashing

NAME = "predictions.safetensors"
READINGS = ("class", "dist", "both", "sum_softmax")
METADATA = "teachonce"

Answers = Mapping[str, npt.NDArray[np.int32]]
"""By `label`, `teacher` and the student's readings: int32 (N,), a class each; a label may be `UNLABELLED`, -1."""


class Origin(config.Model):
    """On what predictions were made."""

    keys_crc32: int = pydantic.Field(ge=0, lt=1 << 32)
    """CRC-32 of the keys of all validation images in row order (`hashing.keys_crc32`)."""
    classes_sha256: str
    """SHA-256 of the canonical JSON of the list of class names."""
    teacher_sha256: str
    """SHA-256 of the teacher's weights."""


def write(folder: Path, answers: Answers, origin: Origin) -> None:
    """Write the file into an existing folder; equal predictions give equal bytes."""
    # One key: safetensors writes several in an order that changes from run to run.
    metadata = {METADATA: hashing.canonical_json(origin.model_dump(mode="json"))}
    arrays = {name: np.ascontiguousarray(array, dtype=np.int32) for name, array in answers.items()}
    files.write_bytes(folder / NAME, safetensors.numpy.save(arrays, metadata=metadata))


def read(folder: Path) -> tuple[dict[str, npt.NDArray[np.int32]], Origin]:
    """Predictions and what they were made on.

    Raises:
        DataError: the file is missing, damaged or of another form.
    """
    path = folder / NAME
    cure = "Make it again: dvc repro evaluate; or fetch it: dvc pull evaluate"
    try:
        with safetensors.safe_open(path, framework="np") as stream:
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  no mapping
            metadata = stream.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise errors.DataError(f"{path}: cannot be read ({error}). {cure}") from error
    shapes = {array.shape for array in arrays.values()}
    if not {"label", "teacher", "class"} <= set(arrays) or len(shapes) != 1 or METADATA not in metadata:
        raise errors.DataError(f"{path}: must hold label, teacher and class of equal length, and its origin. {cure}")
    try:
        origin = Origin.model_validate_json(metadata[METADATA], strict=True)
    except pydantic.ValidationError as error:
        raise errors.DataError(f"{path}: does not say what it was made on. {cure}") from error
    return arrays, origin
