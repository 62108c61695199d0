"""Which views an audit recomputes: chosen by hash, so that two audits of one cache choose the same."""

import bisect
import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.core import hashing
from teachonce.store import store_reader


@dataclass(frozen=True, slots=True)
class SampledView:
    """A row of the cache, with the view whose logits it holds."""

    tar: int
    """Position of the tar in the store's extent."""
    row: int
    """Row in the tar."""
    aug_seed: int
    """Augmentation seed of the view, 0 … below those of the store."""
    pixels: npt.NDArray[np.uint8] | None = None
    """uint8 (3, size, size) as the teacher saw it; None until the tar has been read."""


def choose_by_hash(cache: store_reader.Cache, count: int, seed: int) -> dict[int, list[SampledView]]:
    """Views to recompute, by position of their tar; without repetition, at most as many as the cache has rows.

    Args:
        cache: the store.
        count: views of the sample.
        seed: another one gives another sample.
    """
    tars = cache.extent.tars
    digests = [unit.objects for unit in cache.units()]
    ends = list(itertools.accumulate(tar.nsamples for tar in tars))
    total = ends[-1] * cache.extent.aug_seeds
    chosen: dict[int, list[SampledView]] = {}
    drawn: set[int] = set()
    draw_index = 0
    # The objects' digests take part: whoever writes rows cannot know beforehand which of them will be checked, since to
    # change a row is to change the choice.
    base = hashing.json_digest([seed, digests])
    while len(drawn) < min(count, total):
        position = hashing.seed64("audit", base, draw_index) % total
        draw_index += 1
        if position in drawn:
            continue
        drawn.add(position)
        image, aug_seed = divmod(position, cache.extent.aug_seeds)
        tar = bisect.bisect_right(ends, image)
        chosen.setdefault(tar, []).append(SampledView(tar, image - (ends[tar] - tars[tar].nsamples), aug_seed))
    return chosen
