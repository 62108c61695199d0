"""How sure a difference is: of two trained students on the same images, or of two settings with several seeds each.

Shapes: S students of a setting, N validation images.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats

ERRORS = 2.0
"""Standard errors beyond which a difference passes."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A difference of two shares, left less right."""

    difference: float
    """Of the two shares."""
    se: float
    """Its standard error."""

    @property
    def passes(self) -> bool:
        """Whether it is more than two standard errors."""
        return abs(self.difference) > ERRORS * self.se


def compare_paired(left_SN: npt.NDArray[np.bool_], right_SN: npt.NDArray[np.bool_]) -> Gap:
    """Two students, or the means of a few, on the same images: what both get right, or neither, tells nothing.

    Args:
        left_SN: whether each student of the one setting is right, bool (S, N).
        right_SN: of the other setting; the count of students may be another.

    Returns:
        Of one student each, the standard error that McNemar's test stands on: sqrt(b + c - (b - c)² / N) / N, where b
        and c count the images that one alone gets right.
    """
    gap_N = left_SN.mean(axis=0) - right_SN.mean(axis=0)
    return Gap(float(gap_N.mean()), float(gap_N.std() / math.sqrt(len(gap_N))))


def compare_means(left: Sequence[float], right: Sequence[float]) -> Gap:
    """The difference of two settings' means over their seeds, by Welch's standard error.

    Args:
        left: a share for each seed, two or more.
        right: likewise of the other setting.
    """
    spreads = ((statistics.stdev(shares), len(shares)) for shares in (left, right))
    return Gap(statistics.fmean(left) - statistics.fmean(right), error_of_means(*spreads))


def error_of_means(*spreads: tuple[float, int]) -> float:
    """Welch's standard error of a difference of means, from the sample standard deviation and the count of each."""
    return math.sqrt(sum(sd**2 / count for sd, count in spreads))


def chance_of_means(difference: float, left: tuple[float, int], right: tuple[float, int]) -> float:
    """Share of cases in which the means of two equal settings would be as far apart or farther, two-sided.

    Args:
        difference: of the means.
        left: sample standard deviation over the seeds, and how many seeds, two or more.
        right: likewise of the other setting.

    Source: Welch 1947, with the degrees of freedom of Welch and Satterthwaite.
    """
    error = error_of_means(left, right)
    if not error:
        return float(not difference)
    freedom = error**4 / sum((sd**2 / count) ** 2 / (count - 1) for sd, count in (left, right))
    return float(2 * scipy.stats.t.sf(abs(difference) / error, freedom))
