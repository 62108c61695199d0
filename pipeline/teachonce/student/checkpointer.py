"""What a run leaves while it runs: curves and checkpoints, by the first rank; all ranks come by."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from teachonce.core import errors
from teachonce.student import curve, kept_weights, pending_steps, trainer


class Checkpointer:
    """Curves and checkpoints of one run.

    A checkpoint is written only when all steps before it have been read: the host is ahead of a GPU, and what it has
    not read of may have been refused. Saved any earlier, a checkpoint could stand at a step that the curves lack, and a
    run that goes on from it would end with other curves than one that nothing disturbed.
    """

    def __init__(self, student_trainer: trainer.Trainer, folder: Path, points: list[tuple[int, curve.Point]]) -> None:
        """Begin where a run stands.

        Args:
            student_trainer: what is saved.
            folder: of the run.
            points: of the curves so far.
        """
        self._trainer, self._folder = student_trainer, folder
        self._world, self._config = student_trainer.world, student_trainer.student.config
        self._length = student_trainer.length
        self._curves = curve.Curve(folder / "curves", points) if self._world.is_main else None
        self._pending = pending_steps.PendingSteps(self._world, student_trainer.run_ahead)

    def after_step(self, step: int, keys: tuple[str, ...], means: Mapping[str, Tensor]) -> curve.Point | None:
        """Take note of a step, and save, where it is time to; the last point that was read meanwhile.

        Args:
            step: which.
            keys: of this rank's samples.
            means: what `Trainer.train_step` gave.

        Raises:
            NumericsError: a step that was read had a loss or gradient that is not finite.
        """
        gate = self._trainer.gate
        # The gate's flag of this very step, copied behind it: what is read later tells of it, not of later ones.
        self._pending.add(self._trainer.step_info(step, keys), means, gate.shut if gate else None)
        is_due = step + 1 == self._length.total or self._is_due(step + 1)
        # Refused steps are found here, before they could be saved; where nothing is due, the host need not wait.
        point = self.read_pending(everything=is_due)
        if is_due:
            self._save(step + 1)
        return point

    def read_pending(self, *, everything: bool) -> curve.Point | None:
        """Read what is due, or all there is, into the curves; the last point.

        Raises:
            NumericsError: a step had a loss or gradient that is not finite.
        """
        point = None
        for outcome in self._pending.read(everything=everything):
            step = outcome.info.step
            if step % self._config.log_every == 0 or step + 1 == self._length.total:
                point = self._add_point(outcome)
        return point

    def _add_point(self, outcome: pending_steps.StepOutcome) -> curve.Point:
        # The ranks have the same names in the same order: whether labels count is asked of the global batch.
        sums = self._world.all_sum(list(outcome.means.values()))
        point = dict(zip(outcome.means, sums, strict=True)) | {"lr": outcome.info.learning_rate}
        with self._world.sync_errors():
            if self._curves:
                self._curves.add(outcome.info.step, point)
        return point

    def stop(self, steps_done: int, start_step: int) -> None:
        """Save, unless that is done, and end.

        Raises:
            StoppedError: always, on the first rank.
        """
        self.read_pending(everything=True)
        # Where nothing was done, the checkpoint that it began with is the one to go on from.
        if steps_done > start_step and not self._is_due(steps_done):
            self._save(steps_done)
        stopped = errors.StoppedError(
            "",
            f"saved after {steps_done} of {self._length.total} steps",
            "Run the same command again to go on from there",
        )
        self._world.raise_first(stopped if self._world.is_main else None)

    def close(self) -> None:
        """Write what DVCLive has not written yet."""
        if self._curves:
            self._curves.end()

    def _is_due(self, steps_done: int) -> bool:
        return steps_done % self._config.checkpoint_every == 0 or self._length.position(steps_done)[1] == 0

    def _save(self, steps_done: int) -> None:
        # One rank writes, but all come by: where its disk is full, the others must end too, and not wait for a sum
        # that it never joins.
        with self._world.sync_errors():
            if self._curves:
                # Before the checkpoint: a run that goes on from there has all that was to be kept up to there.
                kept_weights.save(self._folder, self._length, steps_done, self._trainer.ema.module)
                self._trainer.save(self._folder, steps_done, self._curves.points)
