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

    unit: unit_plan.Unit
    """The unit that was run."""
    record: schema.UnitRecord | None
    """What was written about it; None where it failed."""
    computed: bool
    """Whether this run computed it; False where it was finished before, or failed."""
    error: errors.TeachonceError | str = ""
    """Why it failed: a refusal, or one line; empty where it did not."""


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
        """Start the threads or processes that render; the teacher is not loaded yet.

        Args:
            teacher_folder: of the teacher.
            device: where it answers.
            render_workers: count of threads or processes that render.
            render: which of the two; by default what suits the device.
            overlapped: see `unit_computation.compute`.
        """
        self._folder = teacher_folder
        self._device = device
        self._teacher: predictor.Predictor | None = None
        self._pool = renderer_choice.start_pool(render or renderer_choice.default_kind(device.type), render_workers)
        self._overlapped = overlapped
        # The turn at a unit is a lock of the process, which does not keep its threads from one another; and two units
        # at a time would share the GPU's memory, which batch_size fills for one.
        self._turn = threading.Lock()

    def run_unit(self, job: unit_lookup.Job, unit: unit_plan.Unit) -> Result:
        """Find the unit finished, or compute it.

        A unit whose data or logits are bad fails alone: its result says why. Other errors pass through.
        """
        try:
            with (
                self._turn,
                disk_errors.explain_write_errors(job.scratch),
                unit_lookup.exclusive_access(job, unit),
            ):
                return self._find_or_compute(job, unit)
        except (errors.DataError, errors.NumericsError, errors.DiskError) as error:
            return Result(unit, None, computed=False, error=error)

    def _find_or_compute(self, job: unit_lookup.Job, unit: unit_plan.Unit) -> Result:
        record = unit_lookup.find_finished(job, unit)
        # Other libraries may have made the same bytes: the canary is a small proof, and spares a whole unit.
        if record and (
            unit_lookup.is_current(record) or unit_lookup.replays_canary(job, unit, record, self._predictor(job))
        ):
            return Result(unit, record, computed=False)
        try:
            with device_memory.refuse_out_of_memory("configs/teacher", "batch_size", job.batch_size, "Lower it"):
                record = unit_computation.compute(
                    job, unit, self._predictor(job), self._pool, overlapped=self._overlapped
                )
        except BrokenExecutor:
            return Result(unit, None, computed=False, error=_DEAD)
        return Result(unit, record, computed=True)

    def close(self) -> None:
        """Free the teacher's memory, and end what renders."""
        self._teacher = None
        self._pool.shutdown(cancel_futures=True)

    def _predictor(self, job: unit_lookup.Job) -> predictor.Predictor:
        # Loaded late: a run that finds all of its units finished never reads the weights.
        if self._teacher is None or self._teacher.compiled != job.compiled:
            network = teacher_network.load(self._folder, self._device)
            self._teacher = predictor.Predictor(
                network, job.recipe.teacher, self._device, compiled_for=job.batch_size if job.compiled else None
            )
        return self._teacher
