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
_MOST_KEYS = 16
"""Samples that a message names at most."""


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What the host knows of a step without asking the device."""

    step: int
    """Number within the run."""
    keys: tuple[str, ...]
    """Of this rank's samples, for a message."""
    learning_rate: float
    """With which it was taken."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What the device has told of a step."""

    info: StepInfo
    """Of which step."""
    means: dict[str, float]
    """What this rank's batch adds to the global means before the step, by their names in the curves."""


@dataclass(frozen=True, slots=True)
class _Unread:
    info: StepInfo
    names: tuple[str, ...]
    values: Tensor
    """float32 on the host: whether the update was refused, then the means."""
    arrival: torch.cuda.Event | None


class PendingSteps:
    """Outcomes in the order of their steps."""

    def __init__(self, world: process_group.World, run_ahead: int) -> None:
        """Read for a rank.

        Args:
            world: all ranks read the same steps at the same time.
            run_ahead: steps that may be unread.
        """
        self._world, self._run_ahead = world, run_ahead
        self._unread: deque[_Unread] = deque()

    def add(self, info: StepInfo, means: Mapping[str, Tensor], refused: Tensor | None) -> None:
        """Take note of a step that the device may still be at.

        Args:
            info: which.
            means: scalars on the device.
            refused: scalar on the device: 1 where weights were kept from the step; None where that is known to be 0.
        """
        flag = torch.zeros((), device=self._world.device) if refused is None else refused
        # One tensor, one copy. It is a copy of now: the gate's flag may be set by the next step while this one is
        # unread, and would then blame the wrong samples.
        values, arrival = torch.stack([flag, *means.values()]).to("cpu", non_blocking=True), None
        if self._world.device.type == "cuda":
            # Leaves the host's core to its loaders while it waits.
            arrival = torch.cuda.Event(blocking=True)
            arrival.record()
        self._unread.append(_Unread(info, tuple(means), values, arrival))

    def read(self, *, everything: bool = False) -> Iterator[StepOutcome]:
        """The outcomes that are due, or all of them.

        Raises:
            NumericsError: on a step that was refused.
        """
        # Only steps so far back that their numbers have arrived: the newest could be read only by waiting for the
        # device. By count, never by what has arrived: ranks must read the same steps at the same time, since they agree
        # on a refusal by a sum that all must join.
        while len(self._unread) > (0 if everything else self._run_ahead):
            oldest = self._unread.popleft()
            if oldest.arrival:
                # Before it, the memory on the host may still hold what stood there before the copy.
                oldest.arrival.synchronize()
            refused, *means = oldest.values.tolist()
            outcome = StepOutcome(oldest.info, dict(zip(oldest.names, means, strict=True)))
            if refused:
                raise_non_finite(self._world, oldest.info, outcome.means["loss"])
            yield outcome


def raise_non_finite(world: process_group.World, info: StepInfo, loss: float) -> None:
    """End all ranks; the first one whose own loss is not finite names its samples, or the first where none is.

    Args:
        world: all ranks, which come by here for the same step.
        info: of the step, as this rank knows it.
        loss: of this rank's samples.

    Raises:
        NumericsError: always, on the first rank.
    """
    is_wrong = not math.isfinite(loss)
    is_nobody = not world.all_sum([is_wrong])[0]
    keys = [key for key in info.keys if key]
    more = f" and {len(keys) - _MOST_KEYS} more" if len(keys) > _MOST_KEYS else ""
    what = f"the loss of step {info.step} is {loss}" if is_wrong else f"the gradient of step {info.step} is not finite"
    error = errors.NumericsError(
        "train",
        f"{what}, on samples {', '.join(keys[:_MOST_KEYS])}{more}",
        "Lower lr, or use float32; the last checkpoint is kept",
    )
    world.raise_first(error if is_wrong or is_nobody else None)
