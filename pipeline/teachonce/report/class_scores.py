"""Which classes are hard, and what they are taken for.

Shapes: N validation images, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.evaluate import predictions
from teachonce.shards import index


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class: how often it is recognised, and by whom."""

    name: str
    """Of the class."""
    images: int
    """Validation images with this label."""
    teacher: float
    """Share of them that the teacher gets right."""
    students: tuple[float, ...]
    """The same of each student."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Images of one class that were taken for another."""

    truth: str
    """Name of the label's class."""
    answer: str
    """Name of the class that was given."""
    count: int
    """How many images."""
    share: float
    """Of all images with this label."""


def score_classes(answers: Mapping[str, predictions.ClassPredictions], names: Sequence[str]) -> list[ClassScore]:
    """Accuracy by class of the teacher and of some students, in label order; classes without an image are left out.

    Args:
        answers: the students' predictions, on the same images.
        names: of the classes.
    """
    arrays = list(answers.values())
    label_N = arrays[0]["label"]
    # Only labelled images are counted, by the way in which bincount's argument is chosen.
    is_labelled_N = label_N != index.UNLABELLED
    count_C = np.bincount(label_N[is_labelled_N], minlength=len(names))
    right_WC = [
        np.bincount(label_N[is_labelled_N & (answer_N == label_N)], minlength=len(names))
        for answer_N in (arrays[0]["teacher"], *(each[main_answer(each)] for each in arrays))
    ]
    return [
        ClassScore(name, int(count_C[c]), *_split([float(right_C[c] / count_C[c]) for right_C in right_WC]))
        for c, name in enumerate(names)
        if count_C[c]
    ]


def main_answer(arrays: predictions.ClassPredictions) -> str:
    """The answer that stands for a student: of both heads where it has two."""
    return "both" if "both" in arrays else "class"


def _split(shares: list[float]) -> tuple[float, tuple[float, ...]]:
    return shares[0], tuple(shares[1:])


def count_confusions(arrays: predictions.ClassPredictions, classes: int) -> npt.NDArray[np.int64]:
    """How many images of each class were given which class: int64 (C, C), truth by answer.

    Args:
        arrays: a student's predictions.
        classes: C.
    """
    label_N, answer_N = arrays["label"], arrays[main_answer(arrays)]
    is_labelled_N = label_N != index.UNLABELLED
    pairs = label_N[is_labelled_N].astype(np.int64) * classes + answer_N[is_labelled_N]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def list_confusions(counts_CC: npt.NDArray[np.int64], names: Sequence[str], most: int) -> list[Confusion]:
    """The pairs of classes that are mixed up most often, most often first, ties in label order.

    Args:
        counts_CC: truth by answer.
        names: of the classes.
        most: pairs at most.
    """
    wrong_CC = counts_CC - np.diag(np.diag(counts_CC))
    order = np.argsort(-wrong_CC, axis=None, kind="stable")[:most]
    return [
        Confusion(names[truth], names[answer], int(count), float(count / counts_CC[truth].sum()))
        for truth, answer in (divmod(int(place), len(names)) for place in order)
        if (count := wrong_CC[truth, answer])
    ]
