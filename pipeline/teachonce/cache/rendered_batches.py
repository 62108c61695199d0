"""Views of one unit: an image is decoded once and rendered under all aug seeds of the group.

Where the policy mixes, images come in pairs that hold for a block of aug seeds, and are decoded once a block.

Shapes: B views, N images of a mix group, S aug seeds, H and W pixels.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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

    @property
    def count(self) -> int:
        """Of its N × S views."""
        return len(self.samples) * len(self.aug_seeds)

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
        pool: decoding and rendering let go of the interpreter, so that threads work beside the forward pass.
        buffer: gives uint8 (B, 3, H, W) for B views to be put into, which may be reused once the next batch but one is
            asked for; by default each batch has its own.
        ahead: batches that are being rendered while one is consumed.
    """
    rendering_batches: deque[_Rendering] = deque()
    # Threads write into the batch itself; what processes send has to be put there, as what fills a reused buffer has.
    is_in_place = buffer is None and isinstance(pool, ThreadPoolExecutor)
    # Batches come out in order, however their images finish: where a row lies in a batch decides how its logits round.
    for batch_groups in _split_into_batches(groups, batch_size):
        rendering_batches.append(_start(batch_groups, recipe, pool, is_in_place=is_in_place))
        if len(rendering_batches) > ahead:
            yield rendering_batches.popleft().finish(buffer)
    while rendering_batches:
        yield rendering_batches.popleft().finish(buffer)


@dataclass(frozen=True, slots=True)
class _Rendering:
    """A batch that is being rendered."""

    groups: tuple[MixGroup, ...]
    futures: list[Future[Pixels]]
    """The views of each group."""
    views: Pixels | None
    """Where they are written, (B, 3, H, W); None where they come with the futures alone."""

    def finish(self, buffer: Callable[[int], Pixels] | None) -> ViewBatch:
        """Wait for the views."""
        views = [future.result() for future in self.futures]
        if self.views is not None:
            return ViewBatch(self.groups, self.views)
        # The buffer is asked for only now: that may have to wait until the device has read its last content.
        return ViewBatch(self.groups, np.concatenate(views, out=buffer(sum(map(len, views))) if buffer else None))


def _start(groups: tuple[MixGroup, ...], recipe: schema.Recipe, pool: Executor, *, is_in_place: bool) -> _Rendering:
    if not is_in_place:
        return _Rendering(groups, [pool.submit(render_group, group, recipe) for group in groups], None)
    ends = list(itertools.accumulate(group.count for group in groups))
    views = np.empty((ends[-1], 3, recipe.teacher.size, recipe.teacher.size), np.uint8)
    places = np.split(views, ends[:-1])
    futures = [pool.submit(render_group, group, recipe, place) for group, place in zip(groups, places, strict=True)]
    return _Rendering(groups, futures, views)


def _split_into_batches(groups: Iterator[MixGroup], batch_size: int) -> Iterator[tuple[MixGroup, ...]]:
    # Cut before a group as large as the largest so far might not fit: batch_size bounds the memory of a forward pass.
    # The cut depends on the unit alone, so that a unit computed again meets the same batches and the same rounding.
    pending: list[MixGroup] = []
    largest = views = 0
    for group in groups:
        pending.append(group)
        largest, views = max(largest, group.count), views + group.count
        if views + largest > batch_size:
            yield tuple(pending)
            pending, views = [], 0
    if pending:
        yield tuple(pending)


def render_group(group: MixGroup, recipe: schema.Recipe, out: Pixels | None = None) -> Pixels:
    """Decode and render a group: uint8 (N × S, 3, H, W), in the order of `MixGroup.views`.

    Args:
        group: the samples and their seeds.
        recipe: policy and size.
        out: where the views are written; None for an array of their own.
    """
    images = [decode.rgb_pixels(sample.image, sample.key) for sample in group.samples]
    keys = [sample.key for sample in group.samples]
    size = recipe.teacher.size
    views = np.empty((group.count, 3, size, size), np.uint8) if out is None else out
    views_NSCHW = views.reshape(len(keys), -1, 3, size, size)
    for place, aug_seed in enumerate(group.aug_seeds):
        mixing.render_mixed_into(recipe.policy, images, keys, aug_seed, views_NSCHW[:, place])
    return views
