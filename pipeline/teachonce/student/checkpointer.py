"""What a run leaves while it runs: curves and checkpoints, by the first rank; all ranks come by."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from teachonce.core import errors
from teachonce.student import curve, pending_steps, schedule, student_config, trainer


class Keeper:
    """Curves and checkpoints of one run."""

    def __init__(
        self,
        who: trainer.Learner,
        settings: student_config.StudentConfig,
        length: schedule.Schedule,
        scratch: Path,
        points: list[tuple[int, curve.Point]],
    ) -> None:
        self._who, self._team = who, who.team
        self._settings, self._length, self._scratch = settings, length, scratch
        self._curves = curve.Curve(scratch / "curves", points) if self._team.first else None
        self._outcomes = pending_steps.Outcomes(self._team, who.run_ahead)

    def after(self, number: int, keys: tuple[str, ...], means: Mapping[str, Tensor]) -> curve.Point | None:
        """Take note of a step, and save, where it is time to; the last point that was read meanwhile.

        Raises:
            NumericsError: a step that was read had a loss or gradient that is not finite.
        """
        shut = self._who.gate.shut if self._who.gate else None
        self._outcomes.add(self._who.step_of(number, keys), means, shut)
        due = number + 1 == self._length.total or self._is_due(number + 1)
        point = self.read(everything=due)
        if due:
            self._save(number + 1)
        return point

    def read(self, *, everything: bool) -> curve.Point | None:
        """Read what is due, or all there is, into the curves; the last point.

        Raises:
            NumericsError: a step had a loss or gradient that is not finite.
        """
        point = None
        for read in self._outcomes.read(everything=everything):
            if read.step.number % self._settings.log_every == 0 or read.step.number + 1 == self._length.total:
                point = self._add(read)
        return point

    def _add(self, read: pending_steps.Outcome) -> curve.Point:
        values = self._team.sums(list(read.means.values()))
        point = dict(zip(read.means, values, strict=True)) | {"lr": read.step.rate}
        with self._team.together():
            if self._curves:
                self._curves.add(read.step.number, point)
        return point

    def stop(self, done: int, begin: int) -> None:
        """Save, unless that is done, and end."""
        self.read(everything=True)
        if done > begin and not self._is_due(done):
            self._save(done)
        self._team.agree(
            errors.StoppedError(
                "",
                f"saved after {done} of {self._length.total} steps",
                "Run the same command again to go on from there",
            )
            if self._team.first
            else None
        )

    def end(self) -> None:
        """Close the curves."""
        if self._curves:
            self._curves.end()

    def _is_due(self, done: int) -> bool:
        return done % self._settings.checkpoint_every == 0 or self._length.position(done)[1] == 0

    def _save(self, done: int) -> None:
        with self._team.together():
            if self._curves:
                trainer.save(self._who, self._scratch, done, self._curves.points)
