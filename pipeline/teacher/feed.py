"""Views of one unit, in row order: an image is decoded once and rendered under all aug seeds of the group.

Shapes: N images of a batch, S aug seeds, H and W pixels.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.cache import identity, schema
from pipeline.shards import decode, read

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a tar with all their views."""

    samples: tuple[read.Sample, ...]
    """N rows."""
    views: Pixels
    """uint8 (N × S, 3, H, W): the S views of a row stand together."""


def batches(
    samples: Iterator[read.Sample],
    recipe: schema.Recipe,
    aug_seeds: Sequence[int],
    *,
    batch_size: int,
    pool: ThreadPoolExecutor,
) -> Iterator[Batch]:
    """Render a unit's views, one batch ahead of the consumer.

    Args:
        samples: rows of the tar, in order.
        recipe: policy and size.
        aug_seeds: seeds of the group.
        batch_size: views of a batch, rounded down to whole images.
        pool: Pillow lets go of the interpreter while it works, so that threads render beside the forward pass.
    """
    images = max(1, batch_size // len(aug_seeds))
    waiting: tuple[tuple[read.Sample, ...], list[Future[Pixels]]] | None = None
    for rows in _chunks(samples, images):
        rendering = [pool.submit(_render, sample, recipe, aug_seeds) for sample in rows]
        if waiting:
            yield _finish(*waiting)
        waiting = rows, rendering
    if waiting:
        yield _finish(*waiting)


def _chunks(samples: Iterator[read.Sample], size: int) -> Iterator[tuple[read.Sample, ...]]:
    rows: list[read.Sample] = []
    for sample in samples:
        rows.append(sample)
        if len(rows) == size:
            yield tuple(rows)
            rows = []
    if rows:
        yield tuple(rows)


def _render(sample: read.Sample, recipe: schema.Recipe, aug_seeds: Sequence[int]) -> Pixels:
    image = decode.rgb(sample.image, sample.key)
    return np.stack([identity.render(recipe, image, sample.key, aug_seed) for aug_seed in aug_seeds])


def _finish(rows: tuple[read.Sample, ...], rendering: list[Future[Pixels]]) -> Batch:
    return Batch(rows, np.concatenate([future.result() for future in rendering]))
