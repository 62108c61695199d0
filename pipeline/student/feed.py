"""Batches for the training loop: lanes shared among loader processes, the same batches whatever their number.

Shapes: B samples, C classes, K kept classes.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.base import errors
from pipeline.cache import codec, identity
from pipeline.cache import read as cache_read
from pipeline.shards import index
from pipeline.student import lane, lanes


@dataclass(frozen=True, slots=True)
class Plan:
    """What determines the batches of a run."""

    shards: str | Path
    """Folder of shards, or its URL."""
    cache: str | Path
    """Store of the training split, or its URL."""
    size: int
    """Side of the student's input."""
    batch_size: int
    """Samples of a global batch."""
    lanes: int
    """Streams of an epoch."""
    buffer: int
    """Samples a lane shuffles among."""
    epochs: int
    """Passes over the training split."""
    aug_seeds: int
    """Epoch e uses seed e modulo this."""
    seed: int
    """Of the order."""
    accept: tuple[str, ...]
    """Refusals to go on with (`cache.identity.Acceptable`)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A global batch."""

    pixels: Tensor
    """uint8 (B, 3, size, size)."""
    label: Tensor
    """int64 (B,)."""
    weight: Tensor
    """float32 (B,): 1, or 0 for padding."""
    row: dict[str, Tensor]
    """The cache's rows: `logits` float32 (B, C), or `class_id` int64 (B, K) and `logp` float16 (B, K)."""

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which a copy to a GPU runs beside its work; asked by the loader."""
        row = {name: tensor.pin_memory() for name, tensor in self.row.items()}
        return Batch(self.pixels.pin_memory(), self.label.pin_memory(), self.weight.pin_memory(), row)


class _Parts(IterableDataset[Batch | errors.TeachonceError]):
    """This process's share of every batch, from a position to the end of the last epoch."""

    def __init__(self, plan: Plan, epoch: int, step: int) -> None:
        self._plan = plan
        self._start = (epoch, step)

    def __iter__(self) -> Iterator[Batch | errors.TeachonceError]:
        # A refusal travels as a value: raised in a worker it would reach the user as a traceback in a traceback.
        try:
            yield from self._batches()
        except errors.TeachonceError as error:
            yield error

    def _batches(self) -> Iterator[Batch]:
        plan = self._plan
        shards = index.read(plan.shards)
        cache = cache_read.open(plan.cache)
        if "tars" in plan.accept:
            shards = identity.held(cache, shards, "train")
        joiner = lane.Joiner(shards, cache, size=plan.size, accept=plan.accept)
        rows_of_tar = [shard.nsamples for shard in shards.index.of_split("train")]
        total = lanes.steps(sum(rows_of_tar), plan.batch_size, plan.lanes)
        share = plan.batch_size // plan.lanes
        padding = joiner.padding()
        for epoch in range(self._start[0], plan.epochs):
            step = self._start[1] if epoch == self._start[0] else 0
            cut = lanes.cut(rows_of_tar, plan.lanes, seed=plan.seed, epoch=epoch)
            streams = []
            for number in _own_lanes(plan.lanes):
                count = sum(segment.stop - segment.first for segment in cut[number])
                order = lanes.shuffle(count, plan.buffer, seed=plan.seed, epoch=epoch, lane=number)
                streams.append(joiner.items(cut[number], order, epoch % plan.aug_seeds, step * share))
            for _ in range(step, total):
                yield _collate([_take(stream, share) for stream in streams], padding)
            for stream in streams:
                next(stream, None)


def _own_lanes(count: int) -> range:
    worker = get_worker_info()
    if worker is None:
        return range(count)
    share = count // worker.num_workers
    return range(worker.id * share, (worker.id + 1) * share)


def _take(stream: Iterator[lane.Item], count: int) -> list[lane.Item | None]:
    return [next(stream, None) for _ in range(count)]


def _collate(taken: list[list[lane.Item | None]], padding: lane.Item) -> Batch:
    """Stack lanes in order; a place without a sample is padding of weight 0."""
    places = [item for part in taken for item in part]
    items = [item or padding for item in places]
    return Batch(
        pixels=torch.from_numpy(np.stack([item.view for item in items])),
        label=torch.tensor([item.label for item in items]),
        weight=torch.tensor([float(item is not None) for item in places]),
        row={name: torch.from_numpy(array) for name, array in gather(items).items()},
    )


def gather(items: Sequence[lane.Item]) -> dict[str, codec.Array]:
    """The items' rows, stacked: arrays (B, …) by name; class ids as int64, which torch can index with."""
    places = defaultdict[int, list[int]](list)
    for place, item in enumerate(items):
        places[id(item.rows)].append(place)
    found: dict[str, codec.Array] = {
        name: np.empty((len(items), *array.shape[1:]), np.int64 if name == "class_id" else array.dtype)
        for name, array in items[0].rows.items()
    }
    # One copy a tar: a batch holds rows of few.
    for of_tar in places.values():
        at = [items[place].row for place in of_tar]
        for name, array in items[of_tar[0]].rows.items():
            found[name][of_tar] = array[at]
    return found


def batches(plan: Plan, *, workers: int, epoch: int = 0, step: int = 0) -> Iterator[Batch]:
    """All batches from a position on, epoch after epoch.

    Args:
        plan: what determines them.
        workers: loader processes; must divide the lanes.
        epoch: first epoch.
        step: first step within it.

    Raises:
        TeachonceError: whatever a lane refused.
    """
    loader = DataLoader(
        _Parts(plan, epoch, step), batch_size=None, num_workers=workers,
        # Zarr's threads do not survive a fork.
        multiprocessing_context="forkserver" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    parts: list[Batch] = []
    for part in loader:
        if isinstance(part, errors.TeachonceError):
            raise part
        parts.append(part)
        if len(parts) == max(1, workers):
            yield _join(parts)
            parts = []


def _join(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return Batch(
        pixels=torch.cat([part.pixels for part in parts]),
        label=torch.cat([part.label for part in parts]),
        weight=torch.cat([part.weight for part in parts]),
        row={name: torch.cat([part.row[name] for part in parts]) for name in parts[0].row},
    )
