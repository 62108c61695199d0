"""Batches for the training loop: lanes shared among loader processes, the same batches whatever their number.

Shapes: B views, C classes, K kept classes.
"""

import contextlib
import itertools
import os
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from teachonce.core import errors, hashing, terminal
from teachonce.format import codec
from teachonce.shards import index
from teachonce.store import compatibility, fingerprint, store_reader
from teachonce.student import (
    batch_mix,
    batch_packet,
    batch_shares,
    batching,
    device_copies,
    lane_reader,
    lanes,
    loader_processes,
    row_sources,
)
from teachonce.views.view_policy import Policy

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Live:
    """Views for a teacher in the loop."""

    policy: Policy
    """What they are."""
    size: int
    """Side of the teacher's input."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What determines the batches of a run."""

    shards: str | Path
    """Folder of shards, or its URL."""
    cache: str | Path | Live
    """Store of the training split, or its URL; or what a live teacher will be asked."""
    size: int
    """Side of the student's input."""
    batch_size: int
    """Views of a global batch."""
    lanes: int
    """Streams of a pass."""
    buffer: int
    """Atoms a lane shuffles among."""
    passes: int
    """How often the images are gone through."""
    aug_seeds: int
    """Pass p uses the p-th block of aug seeds, modulo the blocks among this many."""
    seed: int
    """Of the order."""
    accept: tuple[str, ...]
    """Refusals to go on with (`cache.accept.Acceptable`)."""
    read: str | None = None
    """What `digest` was when the run began; None compares nothing."""


_Part = batching.Batch | Tensor | errors.TeachonceError
"""What travels from a loader process: a batch packed, or why there is none."""


class _Parts(IterableDataset[_Part]):
    """This process's share of every batch, from a position to the end of the last pass."""

    def __init__(self, plan: Plan, start: tuple[int, int], rank: int, ranks: int) -> None:
        self._plan = plan
        self._start = start
        self._rank, self._ranks = rank, ranks

    def __iter__(self) -> Iterator[_Part]:
        # A refusal travels as a value: raised in a worker it would reach the user as a traceback in a traceback.
        try:
            yield from map(batch_packet.pack, self._batches()) if get_worker_info() else self._batches()
        except errors.TeachonceError as error:
            yield error

    def _batches(self) -> Iterator[batching.Batch]:
        plan = self._plan
        shards, source = _open(plan)
        live = isinstance(plan.cache, Live)
        sizes = (plan.size, plan.cache.size) if isinstance(plan.cache, Live) else (plan.size,)
        joiner = lane_reader.Joiner(shards, source, tuple(dict.fromkeys(sizes)))
        policy = source.policy
        atoms_of_tar = atoms(shards, policy)
        views = batch_shares.views_an_atom(policy)
        total = lanes.steps(sum(atoms_of_tar), plan.batch_size // views, plan.lanes)
        share = plan.batch_size // plan.lanes // views
        padding = joiner.padding()
        for number in range(self._start[0], plan.passes):
            step = self._start[1] if number == self._start[0] else 0
            cut = lanes.cut(atoms_of_tar, plan.lanes, seed=plan.seed, number=number)
            block = number % (plan.aug_seeds // policy.repeats)
            streams = []
            for lane_number in _own_lanes(plan.lanes, self._rank, self._ranks):
                count = sum(segment.stop - segment.first for segment in cut[lane_number])
                order = lanes.shuffle(count, plan.buffer, seed=plan.seed, number=number, lane=lane_number)
                streams.append(joiner.items(cut[lane_number], order, block, step * share))
            for _ in range(step, total):
                places = [place for stream in streams for place in _take(stream, share, views)]
                yield _collate(places, padding, policy, live=live)
            for stream in streams:
                next(stream, None)


def _open(plan: Plan) -> tuple[index.Shards, row_sources.Answers]:
    """The images, and where the answers to them come from.

    Raises:
        DataError: they are not those that the run began with.
    """
    shards = index.read(plan.shards)
    if isinstance(plan.cache, Live):
        _require_same(plan, digest(shards, None, plan.aug_seeds))
        return shards, row_sources.Unanswered(shards, plan.cache.policy)
    cache = store_reader.open(plan.cache)
    if "tars" in plan.accept:
        shards = compatibility.restrict_to_cached(cache, shards, "train")
    _require_same(plan, digest(shards, cache, plan.aug_seeds))
    return shards, row_sources.Cached(shards, cache, plan.accept)


def _require_same(plan: Plan, present: str) -> None:
    # Each process opens shards and cache by itself, at its own time.
    if plan.read not in (None, present):
        raise errors.DataError(
            f"{plan.shards}, {plan.cache}", "changed while the run began", "Run the same command again"
        )


def digest(shards: index.Shards, cache: store_reader.Cache | None, aug_seeds: int) -> str:
    """Digest of all bytes that a run reads: its tars in order and, of a cache, the objects with their rows.

    Args:
        shards: the images.
        cache: None where a live teacher answers.
        aug_seeds: that the run uses.
    """
    tars = [shard.sha256 for shard in shards.index.of_split("train")]
    return hashing.json_digest([tars, fingerprint.rows_digest(cache, tars, aug_seeds) if cache else None])


def atoms(shards: index.Shards, policy: Policy) -> list[int]:
    """Atoms of each tar of the training split."""
    images = 1 if policy.mix is None else 2
    return [-(-shard.nsamples // images) for shard in shards.index.of_split("train")]


def _own_lanes(count: int, rank: int, ranks: int) -> range:
    worker = get_worker_info()
    number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
    share = count // (ranks * workers)
    first = (rank * workers + number) * share
    return range(first, first + share)


def _take(stream: Iterator[list[lane_reader.Item]], atoms: int, views: int) -> Iterator[lane_reader.Item | None]:
    """The places of a lane's next atoms; where there is no atom, or no second image in it, they are empty."""
    for _ in range(atoms):
        found = next(stream, [])
        yield from found
        yield from itertools.repeat(None, views - len(found))


def _collate(
    places: list[lane_reader.Item | None], padding: lane_reader.Item, policy: Policy, *, live: bool
) -> batching.Batch:
    """Stack places in order; an empty one becomes padding of weight 0."""
    items = [item or padding for item in places]
    views = [torch.from_numpy(np.stack(sized)) for sized in zip(*(item.views for item in items), strict=True)]
    label = torch.tensor([item.label for item in items])
    weight = torch.tensor([float(item is not None) for item in places])
    mixed = batch_mix.of([item.mixing for item in items], policy.repeats) if policy.mix else None
    return batching.Batch(
        keys=tuple(item.key for item in items),
        pixels=views[0],
        label=label,
        weight=weight,
        row={name: torch.from_numpy(array) for name, array in gather(items).items()},
        count=batching.Count(float(weight.sum()), float((weight * batch_mix.known(label, mixed)).sum())),
        mix=mixed,
        asked=views[-1] if live else None,
    )


def gather(items: Sequence[lane_reader.Item]) -> dict[str, codec.Array]:
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


def batches(
    plan: Plan,
    *,
    workers: int,
    number: int = 0,
    step: int = 0,
    rank: int = 0,
    ranks: int = 1,
    device: torch.device = _CPU,
) -> Generator[batching.Batch]:
    """All batches from a position on, pass after pass; of each, the part of one rank.

    Args:
        plan: what determines them.
        workers: loader processes; with the ranks, they must divide the lanes.
        number: first pass.
        step: first step within it.
        rank: whose part; the parts of all ranks, one after the other, are the global batch.
        ranks: how many share the lanes.
        device: where the batches are wanted; the processes' parts are put together there.

    Raises:
        TeachonceError: whatever a lane refused.
    """
    loader = DataLoader(
        _Parts(plan, (number, step), rank, ranks),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=loader_processes.context(__name__) if workers else None,
        pin_memory=device.type == "cuda",
        prefetch_factor=loader_processes.AHEAD if workers else None,
        worker_init_fn=_start,
    )
    # Closed however this ends: the processes are asked to end then, not killed with this one.
    with contextlib.closing(loader_processes.values(loader, plan.shards)) as parts:
        groups = _groups(parts, max(1, workers))
        if device.type == "cuda":
            yield from device_copies.ahead(groups, device)
        else:
            yield from (batching.join([part.to(device) for part in group]) for group in groups)


def _start(_number: int) -> None:
    """In a loader process."""
    terminal.sanitize_streams()


def require_room(plan: Plan, *, workers: int, ranks: int) -> None:
    """Refuse loader processes for whose batches shared memory is too small.

    Args:
        plan: what determines the batches.
        workers: loader processes of a rank.
        ranks: how many there are.

    Raises:
        ConfigError: it is.
    """
    sizes = [plan.size, plan.cache.size] if isinstance(plan.cache, Live) else [plan.size]
    view_bytes = sum(3 * size * size for size in sizes)
    here = workers * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    loader_processes.require_room(plan.batch_size // ranks // max(1, workers) * view_bytes, here)


def _groups(parts: Iterator[_Part], count: int) -> Iterator[list[batching.Batch]]:
    """What the processes give for each batch."""
    group: list[batching.Batch] = []
    for part in parts:
        if isinstance(part, errors.TeachonceError):
            raise part
        group.append(batch_packet.unpack(part) if isinstance(part, Tensor) else part)
        if len(group) == count:
            yield group
            group = []
