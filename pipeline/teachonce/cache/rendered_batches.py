"""Views of one unit: an image is decoded once and rendered under all aug seeds of the group.

Where the policy mixes, images come in pairs that hold for a block of aug seeds, and are decoded once a block.

Shapes: B views, N images of an atom, S aug seeds, H and W pixels.
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
    """Samples that are rendered together: one, or a pair that is mixed."""

    samples: tuple[sample_reader.Sample, ...]
    """N rows of the tar."""
    aug_seeds: tuple[int, ...]
    """S seeds."""

    def views(self) -> Iterator[tuple[sample_reader.Sample, int]]:
        """Sample and aug seed of each view: the S views of a row stand together."""
        return itertools.product(self.samples, self.aug_seeds)


@dataclass(frozen=True, slots=True)
class ViewBatch:
    """Some views of a unit."""

    atoms: tuple[MixGroup, ...]
    """Whose views, in their order."""
    views: Pixels
    """uint8 (B, 3, H, W)."""

    def keys(self) -> list[tuple[sample_reader.Sample, int]]:
        """Sample and aug seed of each of the B views."""
        return [view for atom in self.atoms for view in atom.views()]


def mix_groups(
    samples: Iterator[sample_reader.Sample], recipe: schema.Recipe, tar: schema.Tar, aug_seeds: Sequence[int]
) -> Iterator[MixGroup]:
    """What of a unit is rendered together: rows in order, or pairs, block after block."""
    if recipe.policy.mix is None:
        for sample in samples:
            yield MixGroup((sample,), tuple(aug_seeds))
        return
    # Partners lie anywhere in the tar: it is held encoded.
    rows = list(samples)
    for block, seeds in itertools.groupby(aug_seeds, lambda aug_seed: aug_seed // recipe.policy.repeats):
        own = tuple(seeds)
        for pair in mixing.pair_rows(recipe.policy, len(rows), tar.sha256, block):
            yield MixGroup(tuple(rows[row] for row in pair), own)


def render_ahead(
    parts: Iterator[MixGroup],
    recipe: schema.Recipe,
    *,
    batch_size: int,
    pool: Executor,
    buffer: Callable[[int], Pixels] | None = None,
    ahead: int = 1,
) -> Iterator[ViewBatch]:
    """Render a unit's views, some batches ahead of the consumer.

    Args:
        parts: from `mix_groups`.
        recipe: policy and size.
        batch_size: views of a batch, rounded down to whole atoms.
        pool: Pillow lets go of the interpreter while it works, so that threads render beside the forward pass.
        buffer: gives uint8 (B, 3, H, W) for B views to be put into, which may be reused once the next batch but one is
            asked for; by default each batch has its own.
        ahead: batches that are being rendered while one is consumed.
    """
    waiting: deque[tuple[tuple[MixGroup, ...], list[Future[Pixels]]]] = deque()
    for some in _chunks(parts, batch_size):
        waiting.append((some, [pool.submit(render_group, atom, recipe) for atom in some]))
        if len(waiting) > ahead:
            yield _finish(*waiting.popleft(), buffer)
    while waiting:
        yield _finish(*waiting.popleft(), buffer)


def _chunks(parts: Iterator[MixGroup], batch_size: int) -> Iterator[tuple[MixGroup, ...]]:
    held: list[MixGroup] = []
    largest = views = 0
    for atom in parts:
        count = len(atom.samples) * len(atom.aug_seeds)
        held.append(atom)
        largest, views = max(largest, count), views + count
        if views + largest > batch_size:
            yield tuple(held)
            held, views = [], 0
    if held:
        yield tuple(held)


def render_group(atom: MixGroup, recipe: schema.Recipe) -> Pixels:
    """uint8 (N × S, 3, H, W), in the order of `Atom.views`."""
    images = [decode.rgb(sample.image, sample.key) for sample in atom.samples]
    keys = [sample.key for sample in atom.samples]
    size = recipe.teacher.size
    views_SN = np.stack([mixing.render_mixed(recipe.policy, images, keys, seed, size) for seed in atom.aug_seeds])
    return views_SN.swapaxes(0, 1).reshape(-1, *views_SN.shape[2:])


def _finish(
    some: tuple[MixGroup, ...], rendering: list[Future[Pixels]], buffer: Callable[[int], Pixels] | None
) -> ViewBatch:
    parts = [future.result() for future in rendering]
    return ViewBatch(some, np.concatenate(parts, out=buffer(sum(map(len, parts))) if buffer else None))
