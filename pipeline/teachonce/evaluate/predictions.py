"""Predictions as a file: one int32 array for each way to answer, in the row order of the validation split.

With what they were made on, so that predictions of different data are never compared.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydantic
import safetensors
import safetensors.numpy

from teachonce.core import config, errors, files, hashing, sealed_files

NAME = "predictions.safetensors"
HEAD_TITLES = {
    "class": "class head",
    "dist": "distillation head",
    "both": "both (mean)",
    "sum_softmax": "both (softmax)",
}
"""The ways to read a student's answer, with their titles in tables."""
HEADS = tuple(HEAD_TITLES)
METADATA = "teachonce"

ClassPredictions = Mapping[str, npt.NDArray[np.int32]]
"""By `label`, `teacher` and the student's readings: int32 (N,), a class each; a label may be `UNLABELLED`, -1."""


class Provenance(config.Model):
    """What predictions were made on: two of them can be compared where these are equal."""

    keys_crc32: int = pydantic.Field(ge=0, lt=1 << 32)
    """CRC-32 of the keys of all validation images in row order (`hashing.keys_crc32`)."""
    classes_sha256: config.Sha256
    """SHA-256 of the canonical JSON of the list of class names."""
    teacher_sha256: config.Sha256
    """SHA-256 of the teacher's weights."""


def save(folder: Path, answers: ClassPredictions, origin: Provenance) -> str:
    """Write the file into an existing folder; its sha256. Equal predictions give equal bytes."""
    # One key: safetensors writes several in an order that changes from run to run.
    metadata = {METADATA: hashing.canonical_json(origin.model_dump(mode="json"))}
    arrays = {name: np.ascontiguousarray(array, dtype=np.int32) for name, array in answers.items()}
    data = safetensors.numpy.save(arrays, metadata=metadata)
    files.write_bytes(folder / NAME, data)
    return hashing.sha256(data)


def read(folder: Path, sha256: str) -> tuple[dict[str, npt.NDArray[np.int32]], Provenance]:
    """Predictions by way to answer, int32 (N,) each, and what they were made on.

    Args:
        folder: the student's folder of predictions.
        sha256: of the file, as its evaluation recorded it.

    Raises:
        DataError: the file is missing, has another digest, or does not hold such arrays.
    """
    path = folder / NAME
    cure = "Make it again: dvc repro evaluate; or fetch it: dvc pull evaluate"
    data = sealed_files.read_verified(
        path, sha256, "that of its metrics, ", sealed_files.Refusal(errors.DataError, cure)
    )
    # Decoded from the very bytes that were hashed: the file may be replaced between two readings.
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that NumPy does not have
        raise errors.DataError(path, f"cannot be read ({error})", cure) from error
    lengths = {array.shape for array in arrays.values()}
    is_sound = len(lengths) == 1 and all(array.ndim == 1 and array.dtype == np.int32 for array in arrays.values())
    if not is_sound or not {"label", "teacher", "class"} <= set(arrays):
        raise errors.DataError(path, "must hold label, teacher and class, int32 of equal length", cure)
    try:
        return arrays, config.parse(_origin(data), Provenance, str(path))
    except (ValueError, errors.ConfigError) as error:
        raise errors.DataError(path, "does not say what it was made on", cure) from error


def _origin(data: bytes) -> object:
    """What stands in a sound file's header, which safetensors gives of files alone, not of bytes."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return files.parse_json(metadata.get(METADATA, "").encode())
