"""The order of a pass over the images: integers in, integers out.

A mix group is what a batch never splits: an image with its views, or a pair of images that are mixed. A pass's mix
groups, tar after tar in a hashed order, are cut into L equal runs, the lanes. Each lane shuffles its run within a
buffer. A global batch takes the same number of mix groups from every lane, in lane order; so the order of samples does
not depend on how many processes share the lanes, and (pass, step) is a position from which to go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.core import hashing


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive mix groups of one tar."""

    tar: int
    """Position of the tar in the split."""
    first: int
    """Position of its first mix group in the tar."""
    stop: int
    """One behind the position of the last."""


def split_pass(
    groups_of_tar: Sequence[int], lanes: int, *, seed: int, pass_index: int
) -> tuple[tuple[Segment, ...], ...]:
    """Cut a pass into lanes whose lengths differ by at most one mix group.

    Args:
        groups_of_tar: mix groups of each tar of the split.
        lanes: how many.
        seed: of the run.
        pass_index: of the pass within the run.

    Returns:
        The segments of each lane, in the order in which it streams them.
    """
    # By mix groups, not by tars: lanes of one length take equal steps, so that no rank waits for a longer lane of
    # another, and only the last batch of a pass is padded.
    total = sum(groups_of_tar)
    bounds = [total * lane // lanes for lane in range(lanes + 1)]
    segments: list[list[Segment]] = [[] for _ in range(lanes)]
    start = 0
    for tar in hashing.permutation(len(groups_of_tar), "tars", seed, pass_index):
        stop = start + groups_of_tar[tar]
        for lane in range(lanes):
            first, last = max(start, bounds[lane]), min(stop, bounds[lane + 1])
            if first < last:
                segments[lane].append(Segment(int(tar), first - start, last - start))
        start = stop
    return tuple(map(tuple, segments))


def shuffled_order(count: int, buffer: int, *, seed: int, pass_index: int, lane: int) -> npt.NDArray[np.int64]:
    """The order in which a lane gives out its mix groups: int64 (count,), positions in the order of streaming.

    A buffer of fixed length is filled in streaming order and a hashed place of it is given out each time, so that the
    mix group given out at place j was streamed before place j + buffer.

    Args:
        count: mix groups of the lane.
        buffer: mix groups that it shuffles among.
        seed: of the run.
        pass_index: of the pass within the run.
        lane: which one.
    """
    # Drawn before anything is streamed: a run that goes on within a pass knows which mix groups were given out, and
    # reads only the others. A generator that advanced as mix groups came could not be asked without reading all tars
    # again.
    bits = np.random.Philox(key=hashing.seed64("buffer", seed, pass_index, lane)).random_raw(count)
    buffered = list(range(min(buffer, count)))
    order = np.empty(count, dtype=np.int64)
    for place in range(count):
        # The remainder of 64 bits favours no place measurably, and takes one draw a mix group: a loop that rejects
        # draws would take a count that is not known ahead.
        pick = int(bits[place]) % len(buffered)
        order[place] = buffered[pick]
        entering = place + buffer
        if entering < count:
            buffered[pick] = entering
        else:
            buffered[pick] = buffered[-1]
            buffered.pop()
    return order


def steps_per_pass(mix_groups: int, groups_a_batch: int, lanes: int) -> int:
    """Steps of a pass: every lane's mix groups, the longest lane deciding; the last step may be padded."""
    # Not the process's own longest lane: every rank must take as many steps, or the others wait for it without end.
    longest = -(-mix_groups // lanes)
    return -(-longest // (groups_a_batch // lanes))
