"""Batches for the training loop, from a WebDataset pipeline whose lanes loader processes share.

The batches are the same whatever the number of processes.

Shapes: B views, C classes, K kept classes.
"""

import contextlib
import functools
import itertools
import os
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from teachonce.core import errors, terminal
from teachonce.format import codec
from teachonce.student import (
    batch_mix,
    batch_packet,
    batch_shares,
    batching,
    device_copies,
    lane_reader,
    lanes,
    loader_processes,
    pixel_slots,
    process_group,
    row_source,
    schedule,
    student_spec,
    train_config,
)
from teachonce.views import kernel_choice, render
from teachonce.views.view_policy import Policy

_Places = Iterator[lane_reader.DrawnView | None]
"""The places of a batch; None where there is no view."""
_Part = batching.Batch | list[Tensor] | errors.TeachonceError
"""A part of a batch; from a loader process it is packed, or why there is none."""


class _BatchStream:
    """The stages that make this process's share of every batch, from a position to the end of the last pass."""

    def __init__(
        self,
        source: row_source.RowSource,
        student: student_spec.Student,
        passes: int,
        *,
        world: process_group.World,
        start: tuple[int, int],
    ) -> None:
        """Take what `iter_batches` is given, and reserve the memory that loader processes render into."""
        self._source, self._config = source, student.config
        self._seed, self._passes, self._start = student.spec.seed, passes, start
        self._rank, self._ranks = world.rank, world.size
        self.slots = pixel_slots.PixelSlots(self._config.workers, _part_shapes(source, self._config, world.size))

    @functools.cached_property
    def _reader(self) -> lane_reader.LaneReader:
        return lane_reader.LaneReader(self._source)

    @functools.cached_property
    def _padding(self) -> lane_reader.JoinedView:
        return self._reader.padding()

    def places(self) -> Iterator[_Places]:
        """The places of each batch, filled by the lanes in turn, while they are gone through."""
        self._source.require_unchanged()
        config, policy = self._config, self._source.policy
        views = batch_shares.views_per_mix_group(policy)
        lane_groups = config.batch_size // config.lanes // views
        first_pass, first_step = self._start
        mix_groups = sum(schedule.mix_groups_per_tar(self._source.shards, policy))
        steps = lanes.steps_per_pass(mix_groups, config.batch_size // views, config.lanes)
        for pass_index in range(first_pass, self._passes):
            step = first_step if pass_index == first_pass else 0
            # Every lane gives out the same count of mix groups a step: so the number of a step places all lanes, and a
            # run that goes on needs no state of its readers.
            streams = self._lanes(pass_index, step * lane_groups)
            for _ in range(step, steps):
                yield itertools.chain.from_iterable(_take(stream, lane_groups, views) for stream in streams)
            for stream in streams:
                # Ended, it lets go of its tar and its buffer before the next pass opens others.
                next(stream, None)

    def render(self, batches: Iterator[_Places]) -> Iterator[batching.Batch]:
        """Render each view into its place of the batch; a place without one becomes padding of weight 0."""
        is_live = self._source.teacher_size is not None
        for number, places in enumerate(batches):
            pixels = self._pixels(number)
            arrays = [pixels_BCHW.numpy() for pixels_BCHW in pixels]
            # One after the other, so that an image is let go once its views are rendered.
            views = [_render_into(view, arrays, place) for place, view in enumerate(places)]
            yield _collate(views, self._padding, self._source.policy, pixels, is_live=is_live)

    def _pixels(self, number: int) -> list[Tensor]:
        """Where this process renders its part of that number."""
        if worker := get_worker_info():
            return self.slots.take(worker.id, number)
        shapes = _part_shapes(self._source, self._config, self._ranks)
        return [torch.empty(shape, dtype=torch.uint8) for shape in shapes]

    def _lanes(self, pass_index: int, start: int) -> list[Iterator[list[lane_reader.DrawnView]]]:
        """This process's lanes of a pass, from a place of each on."""
        config, policy = self._config, self._source.policy
        groups_of_tars = schedule.mix_groups_per_tar(self._source.shards, policy)
        segments = lanes.split_pass(groups_of_tars, config.lanes, seed=self._seed, pass_index=pass_index)
        # Each pass takes the next block of aug seeds. Behind the last one the cached views come again, in another
        # order.
        block = pass_index % (self._source.aug_seeds // policy.repeats)
        streams = []
        for lane in _lanes_of_process(config.lanes, self._rank, self._ranks):
            count = sum(segment.stop - segment.first for segment in segments[lane])
            # Of the lane, not of the process: whoever has the lane, in whatever run, gives its mix groups out alike.
            order = lanes.shuffled_order(count, config.buffer, seed=self._seed, pass_index=pass_index, lane=lane)
            streams.append(self._reader.read(segments[lane], order, block, start))
        return streams


def _part_shapes(
    source: row_source.RowSource, config: train_config.TrainConfig, ranks: int
) -> list[tuple[int, int, int, int]]:
    """Of the pixels that a process renders of each batch, at each size: (B, 3, H, W)."""
    views = config.batch_size // (ranks * max(1, config.workers))
    # Of one size both are one view, rendered once.
    sizes = dict.fromkeys((config.size, source.teacher_size or config.size))
    return [(views, 3, size, size) for size in sizes]


def _lanes_of_process(count: int, rank: int, ranks: int) -> range:
    """Neighbouring lanes: so the processes' parts, one after the other, are the batch in the order of its lanes."""
    worker = get_worker_info()
    worker_index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
    share = count // (ranks * workers)
    first = (rank * workers + worker_index) * share
    return range(first, first + share)


def _take(stream: Iterator[list[lane_reader.DrawnView]], mix_groups: int, views: int) -> _Places:
    """The places of a lane's next mix groups; where there is no mix group, or no second image in it, they are empty."""
    for _ in range(mix_groups):
        mix_group = next(stream, [])
        yield from mix_group
        # Filled up at once, so that a view and its partner stand where the mix looks for them.
        yield from itertools.repeat(None, views - len(mix_group))


def _render_into(
    view: lane_reader.DrawnView | None, pixels: Sequence[lane_reader.Pixels], place: int
) -> lane_reader.JoinedView | None:
    for pixels_BCHW in pixels:
        if view is None:
            pixels_BCHW[place] = 0
        else:
            render.to_pixels(view.image_HWC, view.params, pixels_BCHW.shape[2], pixels_BCHW[place])
    return None if view is None else view.joined


def _collate(
    places: list[lane_reader.JoinedView | None],
    padding: lane_reader.JoinedView,
    policy: Policy,
    pixels: Sequence[Tensor],
    *,
    is_live: bool,
) -> batching.Batch:
    """A batch of views in order, whose pixels stand in their places at each size."""
    views = [view or padding for view in places]
    label_B = torch.tensor([view.label for view in views])
    weight_B = torch.tensor([float(view is not None) for view in places])
    mix = batch_mix.from_draws([view.mix_share for view in views], policy.repeats) if policy.mix else None
    labelled = float((weight_B * batch_mix.has_label(label_B, mix)).sum())
    return batching.Batch(
        keys=tuple(view.key for view in views),
        pixels=pixels[0],
        label=label_B,
        weight=weight_B,
        rows={name: torch.from_numpy(array) for name, array in stack_rows(views).items()},
        count=batching.ViewCount(float(weight_B.sum()), labelled),
        mix=mix,
        teacher_pixels=pixels[-1] if is_live else None,
    )


def stack_rows(views: Sequence[lane_reader.JoinedView]) -> dict[str, codec.Array]:
    """The views' rows: arrays (B, …) by name; class ids as int64, which torch can index with."""
    places_of_tar = defaultdict[int, list[int]](list)
    for place, view in enumerate(views):
        places_of_tar[id(view.rows)].append(place)
    stacked: dict[str, codec.Array] = {
        name: np.empty((len(views), *array.shape[1:]), np.int64 if name == "class_id" else array.dtype)
        for name, array in views[0].rows.items()
    }
    # One copy a tar: a batch holds rows of few.
    for places in places_of_tar.values():
        rows = [views[place].row for place in places]
        for name, array in views[places[0]].rows.items():
            stacked[name][places] = array[rows]
    return stacked


def iter_batches(
    source: row_source.RowSource,
    student: student_spec.Student,
    passes: int,
    *,
    world: process_group.World,
    start: tuple[int, int] = (0, 0),
) -> Generator[batching.Batch]:
    """All batches from a position on, pass after pass; of each, the part of one rank.

    Args:
        source: of samples and rows.
        student: the size, batch, lanes and workers of its training, and the seed of the order.
        passes: how often the images are gone through.
        world: whose part; the parts of all ranks, one after the other, are the global batch. They lie on its device.
        start: first pass, and first step within it.

    Raises:
        TeachonceError: whatever a lane refused.
    """
    workers, is_cuda = student.config.workers, world.device.type == "cuda"
    stream = _BatchStream(source, student, passes, world=world, start=start)
    loader = DataLoader(
        webdataset.DataPipeline(stream.places, stream.render, _send),
        # Each item is a part of a batch already: torch must neither collect nor stack them.
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=loader_processes.start_context(__name__, kernel_choice.PRELOADED) if workers else None,
        pin_memory=is_cuda,
        prefetch_factor=loader_processes.AHEAD if workers else None,
        worker_init_fn=_start_worker,
    )
    # Closed however this ends: the processes are asked to end then, not killed with this one.
    with contextlib.closing(loader_processes.iter_results(loader, source.location)) as parts:
        groups = _groups(parts, max(1, workers), stream.slots)
        if is_cuda:
            yield from device_copies.prefetch(groups, world.device)
        else:
            for group in groups:
                batch = batching.concatenate([part.to(world.device) for part in group])
                # A part by itself is not joined, so not copied yet.
                yield batch.copy_pixels() if workers == 1 else batch


def _send(batches: Iterator[batching.Batch]) -> Iterator[_Part]:
    """Batches as they leave this process."""
    # A refusal travels as a value: raised in a worker it would reach the user as a traceback in a traceback.
    try:
        yield from map(batch_packet.to_shared_memory, batches) if get_worker_info() else batches
    except errors.TeachonceError as error:
        yield error


def _start_worker(_index: int) -> None:
    terminal.sanitize_streams()


def require_loader_memory(source: row_source.RowSource, student: student_spec.Student, ranks: int) -> None:
    """Refuse loader processes for whose batches shared memory is too small.

    Args:
        source: whether a teacher is asked views of its own size.
        student: size, batch and workers.
        ranks: training processes.

    Raises:
        ConfigError: it is too small.
    """
    # All ranks of this machine share its memory.
    processes = student.config.workers * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    part_shapes = _part_shapes(source, student.config, ranks)
    loader_processes.require_shared_memory(sum(map(pixel_slots.slot_bytes, part_shapes)), processes)


def _groups(parts: Iterator[_Part], count: int, slots: pixel_slots.PixelSlots) -> Iterator[list[batching.Batch]]:
    """What the processes give for each batch: torch asks them in turn, so that a group is one part of each.

    Whoever is given a group copies its pixels before asking for the next one: they are overwritten then.
    """
    group: list[batching.Batch] = []
    for number, part in enumerate(parts):
        if isinstance(part, errors.TeachonceError):
            raise part
        group.append(batch_packet.from_shared_memory(part) if isinstance(part, list) else part)
        if len(group) == count:
            yield group
            slots.give_back(number // count)
            group = []
