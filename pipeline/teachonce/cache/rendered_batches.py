"""Views of one unit: an image is decoded once and rendered under all aug seeds of the group.

Where the policy mixes, images come in pairs that hold for a block of aug seeds, and are decoded once a block.

Shapes: B views, N images of a mix group, S aug seeds, H and W pixels.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.format import schema
from teachonce.shards import decode, sample_reader
from teachonce.views import mixing

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MixGroup:
    """Samples that are rendered together: one, or a pair that is mixed; never split between batches."""

    samples: tuple[sample_reader.Sample, ...]
    """N rows of the tar, 1 or 2."""
    aug_seeds: tuple[int, ...]
    """S seeds under which each sample is rendered."""

    def views(self) -> Iterator[tuple[sample_reader.Sample, int]]:
        """Sample and aug seed of each view: the S views of a row stand together."""
        return itertools.product(self.samples, self.aug_seeds)


@dataclass(frozen=True, slots=True)
class ViewBatch:
    """Views of a unit that go through the teacher together."""

    groups: tuple[MixGroup, ...]
    """The groups whose views these are, in the order of the views."""
    views: Pixels
    """Pixels, uint8 (B, 3, H, W)."""

    def keys(self) -> list[tuple[sample_reader.Sample, int]]:
        """Sample and aug seed of each of the B views."""
        return [view for group in self.groups for view in group.views()]


def mix_groups(
    samples: Iterator[sample_reader.Sample], recipe: schema.Recipe, tar: schema.Tar, aug_seeds: Sequence[int]
) -> Iterator[MixGroup]:
    """Groups of a unit that are rendered together: rows in order, or pairs, block after block.

    Args:
        samples: of the tar, in row order.
        recipe: its policy says whether and how views are mixed.
        tar: whose rows they are.
        aug_seeds: of the unit.
    """
    if recipe.policy.mix is None:
        for sample in samples:
            yield MixGroup((sample,), tuple(aug_seeds))
        return
    # Partners lie anywhere in the tar, and change with the block of seeds: all images are held, still encoded.
    rows = list(samples)
    for block, seeds in itertools.groupby(aug_seeds, lambda aug_seed: aug_seed // recipe.policy.repeats):
        block_seeds = tuple(seeds)
        for pair in mixing.pair_rows(recipe.policy, len(rows), tar.sha256, block):
            yield MixGroup(tuple(rows[row] for row in pair), block_seeds)


def render_ahead(
    groups: Iterator[MixGroup],
    recipe: schema.Recipe,
    *,
    batch_size: int,
    pool: Executor,
    buffer: Callable[[int], Pixels] | None = None,
    ahead: int = 1,
) -> Iterator[ViewBatch]:
    """Render a unit's views, some batches ahead of the consumer.

    Args:
        groups: from `mix_groups`.
        recipe: policy and size.
        batch_size: views of a batch, rounded down to whole mix groups.
        pool: Pillow lets go of the interpreter while it works, so that threads render beside the forward pass.
        buffer: gives uint8 (B, 3, H, W) for B views to be put into, which may be reused once the next batch but one is
            asked for; by default each batch has its own.
        ahead: batches that are being rendered while one is consumed.
    """
    rendering_batches: deque[tuple[tuple[MixGroup, ...], list[Future[Pixels]]]] = deque()
    # Batches come out in order, however their images finish: where a row lies in a batch decides how its logits round.
    for batch_groups in _split_into_batches(groups, batch_size):
        rendering_batches.append((batch_groups, [pool.submit(render_group, group, recipe) for group in batch_groups]))
        if len(rendering_batches) > ahead:
            yield _finish(*rendering_batches.popleft(), buffer)
    while rendering_batches:
        yield _finish(*rendering_batches.popleft(), buffer)


def _split_into_batches(groups: Iterator[MixGroup], batch_size: int) -> Iterator[tuple[MixGroup, ...]]:
    # Cut before a group as large as the largest so far might not fit: batch_size bounds the memory of a forward pass.
    # The cut depends on the unit alone, so that a unit computed again meets the same batches and the same rounding.
    pending: list[MixGroup] = []
    largest = views = 0
    for group in groups:
        count = len(group.samples) * len(group.aug_seeds)
        pending.append(group)
        largest, views = max(largest, count), views + count
        if views + largest > batch_size:
            yield tuple(pending)
            pending, views = [], 0
    if pending:
        yield tuple(pending)


def render_group(group: MixGroup, recipe: schema.Recipe) -> Pixels:
    """Decode and render a group: uint8 (N × S, 3, H, W), in the order of `MixGroup.views`."""
    images = [decode.rgb_pixels(sample.image, sample.key) for sample in group.samples]
    keys = [sample.key for sample in group.samples]
    size = recipe.teacher.size
    views_SN = np.stack([mixing.render_mixed(recipe.policy, images, keys, seed, size) for seed in group.aug_seeds])
    return views_SN.swapaxes(0, 1).reshape(-1, *views_SN.shape[2:])


def _finish(
    batch_groups: tuple[MixGroup, ...], rendering: list[Future[Pixels]], buffer: Callable[[int], Pixels] | None
) -> ViewBatch:
    views = [future.result() for future in rendering]
    # The buffer is asked for only now: that may have to wait until the device has read its last content.
    return ViewBatch(batch_groups, np.concatenate(views, out=buffer(sum(map(len, views))) if buffer else None))
