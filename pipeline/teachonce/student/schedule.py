"""How long a run is: integers in, integers out."""

from dataclasses import dataclass

from teachonce.student import student_config


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps of a run."""

    steps_a_pass: int
    """Steps in which every image is shown with all of its repeats."""
    total: int
    """Steps of the run; the last pass may be cut short."""
    warmup: int
    """Steps of the warm-up."""

    @property
    def passes(self) -> int:
        """Passes that the run begins."""
        return -(-self.total // self.steps_a_pass)

    def position(self, step: int) -> tuple[int, int]:
        """Pass and step within it of a global step."""
        return divmod(step, self.steps_a_pass)


def of(settings: student_config.StudentConfig, steps_a_pass: int, repeats: int) -> Schedule:
    """The schedule of a recipe.

    Args:
        settings: epochs, and what one is.
        steps_a_pass: from `lanes.steps`.
        repeats: views of an image in a pass.
    """
    epochs_a_pass = repeats if settings.epoch == "views" else 1

    def steps(epochs: int) -> int:
        return round(epochs * steps_a_pass / epochs_a_pass)

    return Schedule(steps_a_pass, max(1, steps(settings.epochs)), steps(settings.warmup_epochs))
