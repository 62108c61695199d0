"""The order of a pass: laws, and values that must never change."""

import hypothesis
import numpy as np
from hypothesis import strategies

from teachonce.student import lanes

TARS = strategies.lists(strategies.integers(1, 60), min_size=1, max_size=12)
COUNTS = strategies.integers(1, 9)
QUICK = hypothesis.settings(deadline=None)
SEEDS = strategies.integers(0, 2**32)


@QUICK
@hypothesis.given(rows=TARS, count=COUNTS, seed=SEEDS, epoch=strategies.integers(0, 500))
def test_lanes_hold_every_row_once_and_are_equally_long(rows, count, seed, epoch):
    cut = lanes.split_pass(rows, count, seed=seed, pass_index=epoch)
    lengths = [sum(segment.stop - segment.first for segment in segments) for segments in cut]
    assert len(cut) == count
    assert max(lengths) - min(lengths) <= 1
    held = [(s.tar, row) for segments in cut for s in segments for row in range(s.first, s.stop)]
    assert len(held) == sum(rows)
    assert set(held) == {(tar, row) for tar, size in enumerate(rows) for row in range(size)}


@QUICK
@hypothesis.given(rows=TARS, count=COUNTS, seed=SEEDS)
def test_a_lane_streams_each_tar_at_most_once(rows, count, seed):
    for segments in lanes.split_pass(rows, count, seed=seed, pass_index=0):
        assert len({segment.tar for segment in segments}) == len(segments)


@QUICK
@hypothesis.given(
    count=strategies.integers(0, 300), buffer=strategies.integers(1, 400), seed=SEEDS, lane=strategies.integers(0, 64)
)
def test_a_shuffle_is_a_permutation_within_its_buffer(count, buffer, seed, lane):
    order = lanes.shuffled_order(count, buffer, seed=seed, pass_index=3, lane=lane)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(count))
    assert (order < np.arange(count) + buffer).all()


def test_a_buffer_of_one_keeps_the_order():
    assert lanes.shuffled_order(20, 1, seed=0, pass_index=0, lane=0).tolist() == list(range(20))


def test_a_whole_buffer_reaches_every_place():
    first = {int(lanes.shuffled_order(5, 5, seed=seed, pass_index=0, lane=0)[0]) for seed in range(60)}
    last = {int(lanes.shuffled_order(5, 5, seed=seed, pass_index=0, lane=0)[-1]) for seed in range(60)}
    assert first == last == set(range(5))


@QUICK
@hypothesis.given(rows=strategies.integers(1, 500), share=strategies.integers(1, 9), count=COUNTS)
def test_steps_are_as_few_as_hold_the_longest_lane(rows, share, count):
    found = lanes.steps_per_pass(rows, share * count, count)
    longest = max(
        sum(segment.stop - segment.first for segment in segments)
        for segments in lanes.split_pass([rows], count, seed=0, pass_index=0)
    )
    assert (found - 1) * share < longest <= found * share


def test_seed_epoch_and_lane_each_change_the_order():
    base = lanes.shuffled_order(50, 20, seed=1, pass_index=2, lane=3).tolist()
    others = [
        lanes.shuffled_order(50, 20, seed=seed, pass_index=epoch, lane=lane).tolist()
        for seed, epoch, lane in ((0, 2, 3), (1, 0, 3), (1, 2, 0))
    ]
    assert all(other != base for other in others)
    tars = {
        tuple(s.tar for s in lanes.split_pass([9] * 20, 1, seed=seed, pass_index=number)[0])
        for seed in range(3)
        for number in (0, 1)
    }
    assert len(tars) == 6


def test_the_order_is_a_contract():
    """A checkpoint stores the step alone: with another order it would go on in another run."""
    cut = lanes.split_pass([5, 3, 6, 2], 3, seed=11, pass_index=4)
    assert [[(s.tar, s.first, s.stop) for s in segments] for segments in cut] == GOLDEN_CUT
    assert lanes.shuffled_order(16, 5, seed=11, pass_index=4, lane=2).tolist() == GOLDEN_ORDER


GOLDEN_CUT = [[(2, 0, 5)], [(2, 5, 6), (0, 0, 4)], [(0, 4, 5), (3, 0, 2), (1, 0, 3)]]
GOLDEN_ORDER = [4, 2, 5, 7, 6, 1, 3, 0, 10, 9, 8, 12, 15, 13, 14, 11]
