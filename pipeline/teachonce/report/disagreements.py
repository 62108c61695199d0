"""How often two ways to answer give different classes: table 4 of the DeiT paper, for all students at once.

Shapes: N validation images, W ways to answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teachonce.core import errors, hashing
from teachonce.evaluate import predictions
from teachonce.format import schema
from teachonce.shards import index
from teachonce.store import store_reader

TRUTH, TEACHER = "truth", "teacher"
_SHOWN = ("class", "dist", "both")
_SPLIT = "val"


@dataclass(frozen=True, slots=True)
class Matrix:
    """Shares of images on which answers differ; against the truth, of those that have a label."""

    names: tuple[str, ...]
    """The ways to answer: truth, unless no image has a label; teacher, then each student's."""
    share_WW: npt.NDArray[np.float64]
    """float64 (W, W): 0 on the diagonal, symmetric."""

    def as_dict(self) -> dict[str, dict[str, float]]:
        """The half above the diagonal by names."""
        return {
            left: {right: float(self.share_WW[i, j]) for j, right in enumerate(self.names) if j > i}
            for i, left in enumerate(self.names[:-1])
        }


def expected_provenance(shards: index.Shards, cache: store_reader.Cache) -> predictions.Provenance:
    """What predictions on these validation images must say they were made on."""
    keys = [key for shard in shards.index.of_split(_SPLIT) for key in cache.keys(shard.sha256)]
    return predictions.Provenance(
        keys_crc32=hashing.keys_crc32(keys),
        classes_sha256=schema.classes_sha256(shards.index.classes),
        teacher_sha256=cache.recipe.teacher.weights_sha256,
    )


def read_predictions(
    folder: Path, digests: Mapping[str, str], expected: predictions.Provenance
) -> dict[str, predictions.ClassPredictions]:
    """The predictions of all students, by name, on the same images.

    Args:
        folder: parent of the students' folders of predictions.
        digests: SHA-256 of the predictions by student, in the order of the matrix.
        expected: what all predictions must have been made on.

    Raises:
        DataError: predictions are missing, or were made on other data.
    """
    answers: dict[str, predictions.ClassPredictions] = {}
    for name, sha256 in digests.items():
        # By the digest in its evaluation: else the matrix could be of other weights than the table beside it.
        arrays, provenance = predictions.read(folder / name, sha256)
        path = folder / name / predictions.NAME
        for field in predictions.Provenance.model_fields:
            _require_same(path, field, getattr(expected, field), getattr(provenance, field))
        # One column of labels and one of the teacher's answers serve all students, so that they must be the same ones.
        first = next(iter(answers.values()), arrays)
        for key in ("label", "teacher"):
            expected_crc32, actual_crc32 = (hashing.keys_crc32(map(str, each[key])) for each in (first, arrays))
            _require_same(path, f"crc32 of {key}", expected_crc32, actual_crc32)
        answers[name] = arrays
    return answers


def compare_predictions(folder: Path, digests: Mapping[str, str], expected: predictions.Provenance) -> Matrix:
    """The matrix of all students; arguments and DataError as `read_predictions`."""
    return compare_answers(read_predictions(folder, digests, expected))


def compare_answers(answers: Mapping[str, predictions.ClassPredictions]) -> Matrix:
    """How often answers differ: the truth, the teacher's, then each student's in the order given."""
    first = next(iter(answers.values()))
    ways = {TRUTH: first["label"], TEACHER: first["teacher"]}
    for name, arrays in answers.items():
        heads = [head for head in _SHOWN if head in arrays]
        ways |= {f"{name} {head}" if len(heads) > 1 else name: arrays[head] for head in heads}
    # Shares over no image would be NaN.
    if (ways[TRUTH] == index.UNLABELLED).all():
        del ways[TRUTH]
    share_WW = np.array([[_differ(left_N, right_N) for right_N in ways.values()] for left_N in ways.values()])
    return Matrix(tuple(ways), share_WW)


def _differ(left_N: npt.NDArray[np.int32], right_N: npt.NDArray[np.int32]) -> float:
    # Only the truth can be unlabelled; students and teacher answer every image.
    is_labelled_N = (left_N != index.UNLABELLED) & (right_N != index.UNLABELLED)
    return float((left_N != right_N)[is_labelled_N].mean())


def _require_same(path: Path, key: str, expected: object, actual: object) -> None:
    if expected != actual:
        cure = "Predictions of other data cannot be compared: dvc repro evaluate"
        raise errors.DataError.for_value(path, key, f"that of these shards and cache, {expected}", actual, cure)
