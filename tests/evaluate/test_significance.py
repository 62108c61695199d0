import math

import numpy as np
import pytest
import scipy.stats

from teachonce.evaluate import pair_discordance, significance


def test_two_students_on_the_same_images_as_mcnemar_has_it():
    left_N, right_N = np.ones(200, dtype=bool), np.ones(200, dtype=bool)
    left_N[:4] = False
    right_N[4:22] = False
    gap = significance.compare_paired(left_N[None], right_N[None])
    assert gap.difference == pytest.approx(14 / 200)
    assert gap.se == pytest.approx(math.sqrt(22 - 14**2 / 200) / 200)
    assert gap.passes
    discordance = pair_discordance.count_discordant(left_N, right_N)
    assert (discordance.only_left, discordance.only_right) == (18, 4)
    assert discordance.p == pytest.approx(2 * sum(math.comb(22, k) for k in range(5)) / 2**22)


def test_equal_answers_differ_by_nothing():
    gap = significance.compare_paired(np.ones((1, 9), dtype=bool), np.ones((2, 9), dtype=bool))
    assert (gap.difference, gap.se, gap.passes) == (0, 0, False)
    assert pair_discordance.count_discordant(np.ones(9, dtype=bool), np.ones(9, dtype=bool)).p == 1


def test_settings_by_the_spread_over_their_seeds():
    gap = significance.compare_means([0.90, 0.92, 0.94], [0.89, 0.90, 0.91, 0.92])
    assert gap.difference == pytest.approx(0.015)
    assert gap.se == pytest.approx(math.sqrt(0.0004 / 3 + 0.0005 / 3 / 4))
    assert not gap.passes


def test_chance_of_means_is_welchs():
    left, right = [0.90, 0.92, 0.94], [0.80, 0.93, 0.81, 0.85]
    chance = significance.chance_of_means(
        float(np.mean(left) - np.mean(right)), (float(np.std(left, ddof=1)), 3), (float(np.std(right, ddof=1)), 4)
    )
    assert chance == pytest.approx(scipy.stats.ttest_ind(left, right, equal_var=False).pvalue)
    assert significance.chance_of_means(0.1, (0.0, 3), (0.0, 3)) == 0
    assert significance.chance_of_means(0.0, (0.0, 3), (0.0, 3)) == 1
