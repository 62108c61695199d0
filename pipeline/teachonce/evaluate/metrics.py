"""Numbers that compare answers with labels and with the teacher: pure functions of arrays.

Shapes: B images, C classes.
"""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


def top1_class(scores_BC: Floats) -> npt.NDArray[np.int32]:
    """The likeliest class of each image, ties by lower id: int32 (B,)."""
    return np.asarray(scores_BC.argmax(axis=1), dtype=np.int32)


def in_top_k(scores_BC: Floats, label_B: Ints, count: int) -> npt.NDArray[np.bool_]:
    """Whether the label is among the `count` likeliest classes, ties by lower id: bool (B,)."""
    # Stable, as the cache orders its kept classes: else tied classes would fall in or out of the k by NumPy's release.
    likeliest = np.argsort(-scores_BC, axis=1, kind="stable")[:, :count]
    return np.asarray((likeliest == label_B[:, None]).any(axis=1))


def standard_error(share: float, count: int) -> float:
    """Standard error of a share measured on `count` independent images: sqrt(p · (1 − p) / n)."""
    return math.sqrt(share * (1.0 - share) / count)


def agreement(left_B: Ints, right_B: Ints) -> float:
    """Share of images on which two answers are the same class."""
    return float((left_B == right_B).mean())


def kl_divergence(teacher_logp_BC: Floats, student_logp_BC: Floats) -> npt.NDArray[np.float64]:
    """KL(teacher ‖ student) of each image in nats: float64 (B,), at least 0.

    Args:
        teacher_logp_BC: log-probabilities; minus infinity where the teacher gives none.
        student_logp_BC: log-probabilities, finite.
    """
    teacher_BC = teacher_logp_BC.astype(np.float64)
    # A class that the teacher rules out adds nothing; 0 times minus infinity would make the whole sum NaN.
    p_BC = np.exp(teacher_BC)
    gap_BC = np.where(p_BC > 0, teacher_BC - student_logp_BC, 0.0)
    # Two nearly equal distributions can come out below 0 by rounding, which the record would refuse.
    return np.asarray(np.maximum((p_BC * gap_BC).sum(axis=1), 0.0))


def surest_rows(is_wrong_N: npt.NDArray[np.bool_], probability_N: Floats, count: int) -> list[int]:
    """Rows of the wrong answers that were given with the highest probability, highest first, ties by row.

    Args:
        is_wrong_N: whether an answer is wrong.
        probability_N: that the student gave it.
        count: of rows at most.
    """
    order = np.argsort(np.where(is_wrong_N, -probability_N, 1.0), kind="stable")[:count]
    return [int(row) for row in order if is_wrong_N[row]]
