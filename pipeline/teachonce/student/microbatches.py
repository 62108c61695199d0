"""A batch in parts, for gradient accumulation."""

import itertools
from dataclasses import replace

from teachonce.student import batching


def split(batch: batching.Batch, count: int) -> list[batching.Batch]:
    """The batch's views in so many parts, as equal as may be; what is mixed together stays together.

    The parts keep the batch's `count`, so that their shares of its means add up to the means of the whole.
    """
    if count == 1:
        return [batch]
    # Cut between mix groups: a view is mixed with what stands at its partner's place in the same part.
    views = 2 * batch.mix.repeats if batch.mix else 1
    mix_groups = len(batch.keys) // views
    bounds = [mix_groups * part // count * views for part in range(count + 1)]
    return [_slice(batch, slice(*pair)) for pair in itertools.pairwise(bounds)]


def _slice(batch: batching.Batch, part: slice) -> batching.Batch:
    mix = batch.mix
    if mix:
        mix = replace(mix, keep_B=mix.keep_B[part], box_B4=mix.box_B4[part], is_cut_B=mix.is_cut_B[part])
    return replace(
        batch,
        keys=batch.keys[part],
        pixels=batch.pixels[part],
        label=batch.label[part],
        weight=batch.weight[part],
        rows={name: array[part] for name, array in batch.rows.items()},
        mix=mix,
    )
