"""Mixup and cutmix: who is paired, how much is kept, and pixels exact to the level."""

from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from scipy import stats

from teachonce.views import draw, mixing, render
from teachonce.views.view_policy import MixupCutmix, Policy, RandomErasing

TAR = "ab" * 32
MIXED = Policy(mix=MixupCutmix(), repeats=3)
QUICK = hypothesis.settings(deadline=None, max_examples=60)
PAIRS = ((1, 2), (4,), (3, 5), (0, 6))
PIXELS = strategies.binary(min_size=3 * 16, max_size=3 * 16).map(
    lambda data: np.frombuffer(data, np.uint8).reshape(3, 4, 4)
)


@QUICK
@hypothesis.given(rows=strategies.integers(1, 60), block=strategies.integers(0, 9))
def test_pairs_hold_every_row_once_in_the_order_of_completion(rows, block):
    atoms = mixing.pair_rows(MIXED, rows, TAR, block)
    assert sorted(row for atom in atoms for row in atom) == list(range(rows))
    assert sorted(len(atom) for atom in atoms) == [1] * (rows % 2) + [2] * (rows // 2)
    assert all(atom == tuple(sorted(atom)) for atom in atoms)
    assert [atom[-1] for atom in atoms] == sorted(atom[-1] for atom in atoms)


def test_a_pair_is_mutual_and_holds_for_the_block():
    for row in range(9):
        partners = {seed: mixing.partner_row(MIXED, 9, TAR, seed, row) for seed in range(30)}
        for first in range(0, 30, 3):
            assert partners[first] == partners[first + 1] == partners[first + 2]
        assert len(set(partners.values())) > 3
        for seed, other in partners.items():
            assert other is None or mixing.partner_row(MIXED, 9, TAR, seed, other) == row
    assert mixing.partner_row(MIXED, 1, TAR, 0, 0) is None
    assert mixing.partner_row(Policy(repeats=3), 9, TAR, 0, 4) is None


def test_pairs_are_those_of_the_day_they_were_first_stored():
    assert mixing.pair_rows(MIXED, 7, TAR, 2) == PAIRS
    assert mixing.pair_rows(MIXED, 7, "cd" * 32, 2) != PAIRS


@pytest.mark.parametrize("alpha", [0.8, 1.0, 2.0])
def test_weights_follow_the_beta_distribution(alpha):
    only_sum = MixupCutmix(mixup_alpha=alpha, cutmix_alpha=0)
    weights = [mixing.draw_params(only_sum, f"k{n}", n % 7).weight for n in range(4000)]
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 0.001
    assert all(float(weight * 4096).is_integer() for weight in weights)


def test_cutmix_keeps_what_is_outside_the_box():
    only_cut = MixupCutmix(mixup_alpha=0)
    draws = [mixing.draw_params(only_cut, f"k{n}", 0) for n in range(4000)]
    for params in draws:
        left, top, right, bottom = params.box
        assert 0 <= left <= right <= 1
        assert 0 <= top <= bottom <= 1
        assert params.weight == pytest.approx(1 - (right - left) * (bottom - top), abs=2**-12)
    # A box that is not clipped covers 1 - Beta(1, 1) of the view.
    whole = [
        params
        for params in draws
        if params.box[0] > 0 and params.box[2] < 1 and params.box[1] > 0 and params.box[3] < 1
    ]
    assert len(whole) > 400
    assert all(params.box[2] - params.box[0] == pytest.approx(params.box[3] - params.box[1]) for params in whole)
    centres = [(params.box[0] + params.box[2]) / 2 for params in whole]
    assert 0.45 < np.mean(centres) < 0.55


def test_probability_and_switch():
    rare = MixupCutmix(probability=0.25, switch_probability=0.75)
    draws = [mixing.draw_params(rare, f"k{n}", 1) for n in range(8000)]
    mixed = [params for params in draws if params is not mixing.UNMIXED]
    assert len(mixed) / len(draws) == pytest.approx(0.25, abs=0.02)
    assert sum(params.box is not None for params in mixed) / len(mixed) == pytest.approx(0.75, abs=0.04)


def blended(view, other, params):
    mixed = view.copy()
    mixing.blend(mixed, other, params)
    return mixed


@QUICK
@hypothesis.given(view=PIXELS, other=PIXELS, weight=strategies.integers(0, 4096))
def test_a_sum_is_exact(view, other, weight):
    weight_exact = Fraction(weight, 4096)
    mixed = blended(view, other, mixing.MixParams(float(weight_exact), None))
    expected = [
        int(weight_exact * int(a) + (1 - weight_exact) * int(b) + Fraction(1, 2))
        for a, b in zip(view.flat, other.flat, strict=True)
    ]
    assert mixed.dtype == np.uint8
    assert mixed.ravel().tolist() == expected


def test_a_box_is_the_others():
    view, other = np.zeros((3, 8, 8), np.uint8), np.full((3, 8, 8), 9, np.uint8)
    mixed = blended(view, other, mixing.MixParams(0.875, (0.25, 0.5, 0.75, 0.75)))
    assert mixed[0].tolist() == [[9 * (2 <= x < 6 and 4 <= y < 6) for x in range(8)] for y in range(8)]
    assert not view.any()


def test_both_views_of_a_pair_are_mixed_after_everything_else():
    policy = Policy(erase=RandomErasing(probability=1.0), mix=MixupCutmix(), flip=0.5)
    images = [np.full((6, 6, 3), level, np.uint8) for level in (10, 240)]
    for seed in range(20):
        raw = [
            render.to_pixels(image, draw.view_params(policy, key, seed), 12)
            for image, key in zip(images, "ab", strict=True)
        ]
        mixed = mixing.render_mixed(policy, images, ["a", "b"], seed, 12)
        for place, key in enumerate("ab"):
            params = mixing.draw_params(policy.mix, key, seed)
            assert np.array_equal(mixed[place], blended(raw[place], raw[1 - place], params))
        assert np.array_equal(mixing.render_mixed(policy, images[:1], ["a"], seed, 12)[0], raw[0])


def test_mixing_nothing_is_said_by_leaving_it_out():
    with pytest.raises(ValueError, match="leave mix out"):
        MixupCutmix(mixup_alpha=0, cutmix_alpha=0)
