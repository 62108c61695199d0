"""How unevenly two students differ on the same images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats


@dataclass(frozen=True, slots=True)
class Discordance:
    """Images on which two students differ in being right."""

    only_left: int
    """Images that the left one alone gets right."""
    only_right: int
    """Images that the right one alone gets right."""

    @property
    def p(self) -> float:
        """Chance of a split as uneven, were neither student better: exact, two-sided.

        Source: McNemar 1947, as a binomial test of the images on which they differ.
        """
        differing = self.only_left + self.only_right
        return float(scipy.stats.binomtest(self.only_left, differing).pvalue) if differing else 1.0


def count_discordant(left_N: npt.NDArray[np.bool_], right_N: npt.NDArray[np.bool_]) -> Discordance:
    """Images that one of two students alone gets right; both arguments are bool (N,)."""
    return Discordance(int((left_N & ~right_N).sum()), int((right_N & ~left_N).sum()))
