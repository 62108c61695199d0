"""A batch in parts, for gradient accumulation."""

import itertools
from dataclasses import replace

from teachonce.student import batching


def cut(batch: batching.Batch, count: int) -> list[batching.Batch]:
    """The batch's views in so many parts, as equal as may be; what is mixed together stays together."""
    if count == 1:
        return [batch]
    views = 2 * batch.mix.repeats if batch.mix else 1
    atoms = len(batch.keys) // views
    bounds = [atoms * part // count * views for part in range(count + 1)]
    return [_slice(batch, slice(*pair)) for pair in itertools.pairwise(bounds)]


def _slice(batch: batching.Batch, at: slice) -> batching.Batch:
    mixed = batch.mix
    if mixed:
        mixed = replace(mixed, own=mixed.own[at], box=mixed.box[at], cut=mixed.cut[at])
    return replace(
        batch,
        keys=batch.keys[at],
        pixels=batch.pixels[at],
        label=batch.label[at],
        weight=batch.weight[at],
        row={name: rows[at] for name, rows in batch.row.items()},
        mix=mixed,
    )
