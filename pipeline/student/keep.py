"""What a run leaves while it runs: curves and checkpoints, by the first rank; all ranks come by."""

from pathlib import Path

from torch import Tensor

from pipeline.base import errors
from pipeline.student import config, curve, learner, schedule


class Keeper:
    """Curves and checkpoints of one run."""

    def __init__(
        self, who: learner.Learner, settings: config.StudentConfig, length: schedule.Schedule, scratch: Path,
        points: list[tuple[int, curve.Point]],
    ) -> None:  # fmt: skip
        self._who, self._team = who, who.team
        self._settings, self._length, self._scratch = settings, length, scratch
        self._curves = curve.Curve(scratch / "curves", points) if self._team.first else None

    def after(self, number: int, means: dict[str, Tensor]) -> curve.Point | None:
        """Note a step and save, where it is time to; the point that was noted."""
        ended = number + 1 == self._length.total
        point = None
        if number % self._settings.log_every == 0 or ended:
            values = self._team.sums([float(value) for value in means.values()])
            point = dict(zip(means, values, strict=True)) | {"lr": float(self._who.optimizer.param_groups[0]["lr"])}
            with self._team.together():
                if self._curves:
                    self._curves.add(number, point)
        if ended or self._is_due(number + 1):
            self._save(number + 1)
        return point

    def stop(self, done: int, begin: int) -> None:
        """Save, unless that is done, and end."""
        if done > begin and not self._is_due(done):
            self._save(done)
        self._team.agree(
            errors.StoppedError(
                f"saved after {done} of {self._length.total} steps. Run the same command again to go on from there"
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
                learner.save(self._who, self._scratch, done, self._curves.points)
