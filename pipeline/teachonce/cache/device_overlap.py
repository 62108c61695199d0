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
"""One batch on its way, one that is being put together."""


def is_suited_to(device: torch.device) -> bool:
    """Is this the way for a device? On a CPU nothing runs beside anything else, and NumPy's bytes are the standard."""
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
    """Until then a copy reads it."""


@dataclass(frozen=True, slots=True)
class _Queued:
    """A batch whose answers are on their way."""

    batch: rendered_batches.ViewBatch
    results: dict[str, Tensor]
    """On the host, by name in a store; with `finite` bool (B,) and, where measured, `distances`."""
    arrived: torch.cuda.Event | None
    """When they may be read."""


class OverlappedForward:
    """A teacher whose answers are packed on its device, while the host does the work for the batches beside."""

    ahead = 2
    """Batches to be rendered meanwhile: with a GPU to feed, rendering must not wait for the slowest image."""

    def __init__(self, teacher: predictor.Predictor, form: row_packing.Packing) -> None:
        self._teacher = teacher
        self._form = form
        self._streams = _streams(teacher.device)
        self._tail = torch_codec.prepare_tail(form.tail, teacher.device) if form.tail else None
        self._sketch = form.sketch.to(teacher.device) if form.sketch else None
        self._free: deque[_Slot] = deque(_Slot(torch.empty(0, dtype=torch.uint8)) for _ in range(_SLOTS))
        self._filled: deque[_Slot] = deque()

    def buffer(self, views: int) -> rendered_batches.Pixels:
        """Memory for the next batch's views, uint8 (views, 3, size, size), once its last content has been copied."""
        slot = self._free.popleft()
        if slot.uploaded is not None:
            slot.uploaded.synchronize()
        if len(slot.buffer) < views:
            shape = (views, 3, self._teacher.size, self._teacher.size)
            slot.buffer = torch.empty(shape, dtype=torch.uint8, pin_memory=self._streams is not None)
        self._filled.append(slot)
        return slot.buffer[:views].numpy()

    def answers(
        self, batches: Iterator[rendered_batches.ViewBatch]
    ) -> Iterator[tuple[rendered_batches.ViewBatch, row_packing.PackedBatch]]:
        """Each batch with its packed rows, in order.

        Args:
            batches: made with `buffer`.

        Raises:
            NumericsError: a logit is not finite.
        """
        before: _Queued | None = None
        for batch in batches:
            queued = self._queue(batch)
            if before:
                yield before.batch, self._read(before)
            before = queued
        if before:
            yield before.batch, self._read(before)

    def _queue(self, batch: rendered_batches.ViewBatch) -> _Queued:
        logits_BC = self._teacher.answer(self._upload(len(batch.views)))
        results = torch_codec.pack_on_device(logits_BC, self._form.k, self._tail)
        places = self._form.measured(batch)
        if places is not None:
            measured = {name: tensor[places] for name, tensor in results.items()}
            results["distances"] = fidelity_measurement.row_distances(logits_BC[places], measured, self._sketch)
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
            # Its memory goes back to the stream that it came from, which knows nothing of this one.
            pixels_B3HW.record_stream(main)
        self._free.append(slot)
        return pixels_B3HW

    def _download(self, results: dict[str, Tensor]) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
        if not self._streams:
            return results, None
        download = self._streams.download
        download.wait_event(_mark(torch.cuda.current_stream(self._teacher.device)))
        with torch.cuda.stream(download):
            # Into pinned memory, which torch does not hand out again before the copy has passed.
            copied = {name: tensor.to("cpu", non_blocking=True) for name, tensor in results.items()}
        for tensor in results.values():
            tensor.record_stream(download)
        return copied, _mark(download)

    def _read(self, queued: _Queued) -> row_packing.PackedBatch:
        if queued.arrived is not None:
            queued.arrived.synchronize()
        results = dict(queued.results)
        row_packing.refuse_non_finite(results.pop("finite").numpy(), queued.batch, self._form.tar)
        distances = results.pop("distances", None)
        rows = torch_codec.to_rows(results, self._form.num_classes)
        return row_packing.PackedBatch(rows, None if distances is None else distances.numpy())


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
    return torch.cuda.stream(stream) if stream else nullcontext()


def _mark(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """Passes when all work queued on the stream so far is done; a host that waits for it leaves its core free."""
    event = torch.cuda.Event(blocking=True)
    event.record(stream)
    return event
