"""The order of a pass over the images: integers in, integers out.

An atom is what a batch never splits: an image with its views, or a pair of images that are mixed. A pass's atoms, tar
after tar in a hashed order, are cut into L equal runs, the lanes. Each lane shuffles its run within a buffer. A global
batch takes the same number of atoms from every lane, in lane order; so the order of samples does not depend on how many
processes share the lanes, and (pass, step) is a position from which to go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.core import hashing


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive atoms of one tar."""

    tar: int
    """Position of the tar in the split."""
    first: int
    """Position of its first atom in the tar."""
    stop: int
    """One behind the position of the last."""


def split_pass(
    atoms_of_tar: Sequence[int], lanes: int, *, seed: int, pass_index: int
) -> tuple[tuple[Segment, ...], ...]:
    """Cut a pass into lanes whose lengths differ by at most one atom.

    Args:
        atoms_of_tar: atoms of each tar of the split.
        lanes: how many.
        seed: of the run.
        pass_index: of the pass within the run.

    Returns:
        The segments of each lane, in the order in which it streams them.
    """
    # By atoms, not by tars: lanes of one length take equal steps, so that no rank waits for a longer lane of another,
    # and only the last batch of a pass is padded.
    total = sum(atoms_of_tar)
    bounds = [total * lane // lanes for lane in range(lanes + 1)]
    segments: list[list[Segment]] = [[] for _ in range(lanes)]
    start = 0
    for tar in hashing.permutation(len(atoms_of_tar), "tars", seed, pass_index):
        stop = start + atoms_of_tar[tar]
        for lane in range(lanes):
            first, last = max(start, bounds[lane]), min(stop, bounds[lane + 1])
            if first < last:
                segments[lane].append(Segment(int(tar), first - start, last - start))
        start = stop
    return tuple(map(tuple, segments))


def shuffled_order(count: int, buffer: int, *, seed: int, pass_index: int, lane: int) -> npt.NDArray[np.int64]:
    """The order in which a lane gives out its atoms: int64 (count,), positions in the order of streaming.

    A buffer of fixed length is filled in streaming order and a hashed place of it is given out each time, so that the
    atom given out at place j was streamed before place j + buffer.

    Args:
        count: atoms of the lane.
        buffer: atoms that it shuffles among.
        seed: of the run.
        pass_index: of the pass within the run.
        lane: which one.
    """
    # Drawn before anything is streamed: a run that goes on within a pass knows which atoms were given out, and reads
    # only the others. A generator that advanced as atoms came could not be asked without reading all tars again.
    bits = np.random.Philox(key=hashing.seed64("buffer", seed, pass_index, lane)).random_raw(count)
    buffered = list(range(min(buffer, count)))
    order = np.empty(count, dtype=np.int64)
    for place in range(count):
        # The remainder of 64 bits favours no place measurably, and takes one draw an atom: a loop that rejects draws
        # would take a count that is not known ahead.
        pick = int(bits[place]) % len(buffered)
        order[place] = buffered[pick]
        entering = place + buffer
        if entering < count:
            buffered[pick] = entering
        else:
            buffered[pick] = buffered[-1]
            buffered.pop()
    return order


def steps_per_pass(atoms: int, atoms_a_batch: int, lanes: int) -> int:
    """Steps of a pass: every lane's atoms, the longest lane deciding; the last step may be padded."""
    # Not the process's own longest lane: every rank must take as many steps, or the others wait for it without end.
    longest = -(-atoms // lanes)
    return -(-longest // (atoms_a_batch // lanes))
