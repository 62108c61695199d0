"""The way of a unit's batches over a GPU that is not to wait: copies, forward passes and the host's work side by side.

Batch i + 1 is copied and queued before batch i is read. Its views lie in pinned memory and travel on a stream of their
own; what is kept of the logits is packed where they are, and travels back on another. Nothing between asks the
device for anything.

The same code runs on a CPU, one step after the other, so that tests without a GPU see it.

Shapes: B views of a batch.
"""

import functools
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from teachonce.cache import rendered_batches, row_packing
from teachonce.format import fidelity_measurement, schema, torch_codec
from teachonce.teacher import predictor

_SLOTS = 2
"""Host buffers: one batch is copied from while the next one is put together."""


def is_suited_to(device: torch.device) -> bool:
    """Whether batches of a device are to overlap: on a GPU. A CPU has nothing to overlap with, and packs by NumPy."""
    return device.type == "cuda"


@dataclass(frozen=True, slots=True)
class _Streams:
    upload: torch.cuda.Stream
    download: torch.cuda.Stream


@functools.cache
def _streams(device: torch.device) -> _Streams | None:
    # Once a process: each stream keeps device memory of its own.
    return _Streams(torch.cuda.Stream(device), torch.cuda.Stream(device)) if device.type == "cuda" else None


@dataclass(slots=True)
class _Slot:
    """Host memory for the views of a batch, pinned where there is a GPU."""

    buffer: Tensor
    """uint8 (at least B, 3, H, W)."""
    uploaded: torch.cuda.Event | None = None
    """Passes when the copy to the device has read the buffer; None before its first copy."""


@dataclass(frozen=True, slots=True)
class _Queued:
    """A batch whose packed rows are on their way to the host."""

    batch: rendered_batches.ViewBatch
    results: dict[str, Tensor]
    """On the host, by name in a store; with `finite` bool (B,) and, where measured, `distances`."""
    arrived: torch.cuda.Event | None
    """Passes when `results` may be read; None on a CPU, where they always may."""


class OverlappedForward:
    """A teacher whose logits are packed on its device, while the host renders and reads other batches."""

    ahead = 2
    """Batches to be rendered at a time: with one alone, the GPU would wait for the slowest image of each batch."""

    def __init__(self, teacher: predictor.Predictor, packing: row_packing.Packing) -> None:
        self._teacher = teacher
        self._packing = packing
        self._streams = _streams(teacher.device)
        self._tail = torch_codec.prepare_tail(packing.tail, teacher.device) if packing.tail else None
        self._sketch = packing.sketch.to(teacher.device) if packing.sketch else None
        self._free: deque[_Slot] = deque(_Slot(torch.empty(0, dtype=torch.uint8)) for _ in range(_SLOTS))
        self._filled: deque[_Slot] = deque()

    def buffer(self, views: int) -> rendered_batches.Pixels:
        """Memory for the next batch's views, uint8 (views, 3, size, size), once its last content has been copied."""
        # Written to before the copy has passed, the buffer would give the device pixels of two batches.
        slot = self._free.popleft()
        if slot.uploaded is not None:
            slot.uploaded.synchronize()
        if len(slot.buffer) < views:
            shape = (views, 3, self._teacher.size, self._teacher.size)
            # Grown, never shrunk: pinning memory is slow, and the last batch of a unit is a short one.
            slot.buffer = torch.empty(shape, dtype=torch.uint8, pin_memory=self._streams is not None)
        self._filled.append(slot)
        return slot.buffer[:views].numpy()

    def pack_batches(
        self, batches: Iterator[rendered_batches.ViewBatch]
    ) -> Iterator[tuple[rendered_batches.ViewBatch, row_packing.PackedBatch]]:
        """Each batch with its packed rows, in order.

        Args:
            batches: made with `buffer`.

        Raises:
            NumericsError: a logit is not finite.
        """
        # Batch i is read only once batch i + 1 is queued: to read is to wait, and meanwhile the device has work.
        previous: _Queued | None = None
        for batch in batches:
            queued = self._queue(batch)
            if previous:
                yield previous.batch, self._read(previous)
            previous = queued
        if previous:
            yield previous.batch, self._read(previous)

    def _queue(self, batch: rendered_batches.ViewBatch) -> _Queued:
        logits_BC = self._teacher.answer(self._upload(len(batch.views)))
        results = torch_codec.pack_on_device(logits_BC, self._packing.k, self._tail)
        positions = self._packing.measured(batch)
        if positions is not None:
            measured = {name: tensor[positions] for name, tensor in results.items()}
            results["distances"] = fidelity_measurement.row_distances(logits_BC[positions], measured, self._sketch)
        # One flag a view, read with the rows: to ask the device here whether all is finite would stop the queue.
        results["finite"] = (logits_BC.abs() <= schema.MAX_LOGIT).all(dim=1)
        return _Queued(batch, *self._download(results))

    def _upload(self, views: int) -> Tensor:
        """The views that were put together first, on the device."""
        slot = self._filled.popleft()
        with _on(self._streams.upload if self._streams else None):
            pixels_B3HW = slot.buffer[:views].to(self._teacher.device, non_blocking=True)
        if self._streams:
            slot.uploaded = _mark(self._streams.upload)
            main = torch.cuda.current_stream(self._teacher.device)
            main.wait_event(slot.uploaded)
            # The tensor was allocated for the upload stream. Its memory would be handed out there again while the main
            # stream still reads it, unless torch is told of that use.
            pixels_B3HW.record_stream(main)
        self._free.append(slot)
        return pixels_B3HW

    def _download(self, results: dict[str, Tensor]) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
        if not self._streams:
            return results, None
        download = self._streams.download
        download.wait_event(_mark(torch.cuda.current_stream(self._teacher.device)))
        with torch.cuda.stream(download):
            # A copy to the host that does not block goes into pinned memory, which torch does not hand out again before
            # the copy has passed.
            copied = {name: tensor.to("cpu", non_blocking=True) for name, tensor in results.items()}
        # As in `_upload`: the device memory of the results must outlive the copy on the other stream.
        for tensor in results.values():
            tensor.record_stream(download)
        return copied, _mark(download)

    def _read(self, queued: _Queued) -> row_packing.PackedBatch:
        if queued.arrived is not None:
            queued.arrived.synchronize()
        results = dict(queued.results)
        row_packing.refuse_non_finite(results.pop("finite").numpy(), queued.batch, self._packing.tar)
        distances = results.pop("distances", None)
        rows = torch_codec.to_rows(results, self._packing.num_classes)
        return row_packing.PackedBatch(rows, None if distances is None else distances.numpy())


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
    return torch.cuda.stream(stream) if stream else nullcontext()


def _mark(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """Passes when all work queued on the stream so far is done; a host that waits for it leaves its core free."""
    event = torch.cuda.Event(blocking=True)
    event.record(stream)
    return event
