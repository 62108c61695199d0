"""Steps whose outcome the host has not read yet.

On a CPU each is read at once. On a GPU a step's few numbers travel beside the steps that follow it, and the host reads
them when they have long arrived: it neither waits for the step nor runs further ahead of the device than so many steps.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from teachonce.core import errors
from teachonce.student import process_group

RUN_AHEAD = 4
"""Steps that the host may have given a GPU without having read of them."""
_NAMED = 16
"""Samples that a message names at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """What the host knows of a step without asking."""

    number: int
    """Global number."""
    keys: tuple[str, ...]
    """Of this rank's samples, for a message."""
    rate: float
    """Learning rate."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step told."""

    step: Step
    """Which."""
    means: dict[str, float]
    """What this rank's batch adds to the global means before the step, by their names in the curves."""


@dataclass(frozen=True, slots=True)
class _Unread:
    step: Step
    names: tuple[str, ...]
    values: Tensor
    """float32 on the host: whether the update was refused, then the means."""
    arrived: torch.cuda.Event | None


class Outcomes:
    """Outcomes in the order of their steps."""

    def __init__(self, team: process_group.Team, run_ahead: int) -> None:
        """Read for a rank.

        Args:
            team: all of its ranks read the same steps at the same time.
            run_ahead: steps that may be unread.
        """
        self._team, self._run_ahead = team, run_ahead
        self._unread: deque[_Unread] = deque()

    def add(self, step: Step, means: Mapping[str, Tensor], refused: Tensor | None) -> None:
        """Take note of a step that the device may still be at.

        Args:
            step: which.
            means: scalars on the device.
            refused: scalar on the device: 1 where weights were kept from the step; None where that is known to be 0.
        """
        first = torch.zeros((), device=self._team.device) if refused is None else refused
        values, arrived = torch.stack([first, *means.values()]).to("cpu", non_blocking=True), None
        if self._team.device.type == "cuda":
            # Leaves the host's core to its loaders while it waits.
            arrived = torch.cuda.Event(blocking=True)
            arrived.record()
        self._unread.append(_Unread(step, tuple(means), values, arrived))

    def read(self, *, everything: bool = False) -> Iterator[Outcome]:
        """The outcomes that are due, or all of them.

        Raises:
            NumericsError: on a step that was refused.
        """
        while len(self._unread) > (0 if everything else self._run_ahead):
            oldest = self._unread.popleft()
            if oldest.arrived:
                oldest.arrived.synchronize()
            refused, *means = oldest.values.tolist()
            outcome = Outcome(oldest.step, dict(zip(oldest.names, means, strict=True)))
            if refused:
                refuse(self._team, oldest.step, outcome.means["loss"])
            yield outcome


def refuse(team: process_group.Team, step: Step, loss: float) -> None:
    """End all ranks; the first one whose own loss is not finite names its samples, or the first where none is.

    Raises:
        NumericsError: always, on the first rank.
    """
    wrong = not math.isfinite(loss)
    nobody = not team.sums([wrong])[0]
    keys = [key for key in step.keys if key]
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    what = f"the loss of step {step.number} is {loss}" if wrong else f"the gradient of step {step.number} is not finite"
    error = errors.NumericsError(
        "train",
        f"{what}, on samples {', '.join(keys[:_NAMED])}{more}",
        "Lower lr, or use float32; the last checkpoint is kept",
    )
    team.agree(error if wrong or nobody else None)
