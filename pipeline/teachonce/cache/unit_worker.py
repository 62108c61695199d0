"""What one process does with a unit: find it finished, or compute it. A process of its own, or a Dask worker's."""

import threading
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from teachonce.cache import renderer_choice, unit_computation, unit_lookup, unit_plan
from teachonce.core import device_memory, disk_errors, errors
from teachonce.format import schema
from teachonce.teacher import predictor, teacher_network

_DEAD = "every process that rendered it died. Out of memory, or a crash in a library. Try rendering: threads"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a unit: small enough to travel."""

    item: unit_plan.Unit
    """Which."""
    made: schema.UnitRecord | None
    """Its record; None where it failed."""
    computed: bool
    """False where it was found finished."""
    error: errors.TeachonceError | str = ""
    """Why it failed: a refusal, or one line."""


class Worker:
    """A process's teacher, loaded at the first unit that needs it."""

    def __init__(
        self,
        teacher_folder: Path,
        device: torch.device,
        render_workers: int,
        *,
        render: renderer_choice.Kind | None = None,
        overlapped: bool | None = None,
    ) -> None:
        """Start what renders.

        Args:
            teacher_folder: of the teacher.
            device: where it answers.
            render_workers: threads, or processes, that render.
            render: which of them; by default what suits the device.
            overlapped: see `unit_computation.compute`.
        """
        self._folder = teacher_folder
        self._device = device
        self._teacher: predictor.Predictor | None = None
        self._pool = renderer_choice.start_pool(render or renderer_choice.default_kind(device), render_workers)
        self._overlapped = overlapped
        self._one_at_a_time = threading.Lock()

    def unit(self, work: unit_lookup.Job, item: unit_plan.Unit) -> Result:
        """The unit, found or computed. A unit whose data or logits are bad fails alone; other errors pass through."""
        try:
            with (
                self._one_at_a_time,
                disk_errors.explain_write_errors(work.scratch),
                unit_lookup.exclusive_access(work, item),
            ):
                return self._unit(work, item)
        except (errors.DataError, errors.NumericsError, errors.DiskError) as error:
            return Result(item, None, computed=False, error=error)

    def _unit(self, work: unit_lookup.Job, item: unit_plan.Unit) -> Result:
        known = unit_lookup.find_finished(work, item)
        if known and (
            unit_lookup.is_current(known) or unit_lookup.replays_canary(work, item, known, self._predictor(work))
        ):
            return Result(item, known, computed=False)
        try:
            with device_memory.refuse_out_of_memory("configs/teacher", "batch_size", work.batch_size, "Lower it"):
                made = unit_computation.compute(
                    work, item, self._predictor(work), self._pool, overlapped=self._overlapped
                )
        except BrokenExecutor:
            return Result(item, None, computed=False, error=_DEAD)
        return Result(item, made, computed=True)

    def close(self) -> None:
        """Let go of the teacher's memory, and of what renders."""
        self._teacher = None
        self._pool.shutdown(cancel_futures=True)

    def _predictor(self, work: unit_lookup.Job) -> predictor.Predictor:
        if self._teacher is None or self._teacher.compiled != work.compiled:
            network = teacher_network.load(self._folder, self._device)
            self._teacher = predictor.Predictor(
                network, work.recipe.teacher, self._device, compiled_for=work.batch_size if work.compiled else None
            )
        return self._teacher
