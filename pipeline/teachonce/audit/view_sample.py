"""Which views an audit asks the teacher again: chosen by hash, so that two audits of one cache ask the same."""

import bisect
import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.core import hashing
from teachonce.store import store_reader


@dataclass(frozen=True, slots=True)
class SampledView:
    """A row of the cache with the view it answers."""

    tar: int
    """Position in the extent."""
    row: int
    """Row in the tar."""
    aug_seed: int
    """Aug seed."""
    pixels: npt.NDArray[np.uint8] | None = None
    """uint8 (3, size, size) as the teacher saw it; None until the tar has passed."""


def choose_by_hash(cache: store_reader.Cache, count: int, seed: int) -> dict[int, list[SampledView]]:
    """Places to ask, by tar; without repetition, at most as many as the cache has rows.

    Args:
        cache: the store.
        count: how many.
        seed: another one gives another sample.
    """
    tars = cache.extent.tars
    digests = [unit.objects for unit in cache.units()]
    ends = list(itertools.accumulate(tar.nsamples for tar in tars))
    total = ends[-1] * cache.extent.aug_seeds
    chosen: dict[int, list[SampledView]] = {}
    taken: set[int] = set()
    draw = 0
    # The objects' digests take part: who writes rows cannot know beforehand which will be asked.
    base = hashing.json_digest([seed, digests])
    while len(taken) < min(count, total):
        place = hashing.seed64("audit", base, draw) % total
        draw += 1
        if place in taken:
            continue
        taken.add(place)
        image, aug_seed = divmod(place, cache.extent.aug_seeds)
        tar = bisect.bisect_right(ends, image)
        chosen.setdefault(tar, []).append(SampledView(tar, image - (ends[tar] - tars[tar].nsamples), aug_seed))
    return chosen
