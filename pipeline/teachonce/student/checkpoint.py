"""What a student's run saves to go on from: weights, their average, moments and the curves so far."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from teachonce.core import errors, state_files

COPIES = 4
"""Of a network's weights in a checkpoint: they, their average, two moments."""

_CURVES_BYTES = 1 << 30  # what the points of a run take at most


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything needed to go on; no generator's state, since every step seeds its own."""

    step: int
    """How many steps made these weights."""
    model: dict[str, Any]
    """Weights by timm's names."""
    ema: dict[str, Any]
    """Their average, by the same names."""
    optimizer: dict[str, Any]
    """AdamW's moments and options, as torch gives them."""
    points: list[tuple[int, dict[str, float]]]
    """The curves so far."""

    def tensors(self) -> Iterator[Tensor]:
        """Of weights, average and moments, in no order that matters."""
        yield from self.model.values()
        yield from self.ema.values()
        for moments in self.optimizer["state"].values():
            yield from moments.values()

    def is_finite(self) -> bool:
        """Whether all its numbers are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors())


def save(folder: Path, state: TrainingState) -> None:
    """Write the state whole, beside the one before.

    Raises:
        NumericsError: it holds a number that is not finite; what was saved before stays.
        DiskError: there is no room for it; what was saved before stays.
    """
    if not state.is_finite():
        raise errors.NumericsError(
            "train",
            f"not all weights are finite after {state.step} steps",
            f"Lower lr, or use float32; {folder / state_files.NEWEST} is kept as it was",
        )
    state_files.write(folder, {name: getattr(state, name) for name in TrainingState.__slots__})


def read(
    folder: Path, find_misfit: Callable[[TrainingState], str | None], weights_bytes: int
) -> state_files.ReadResult[TrainingState]:
    """The newest sound state; nothing is changed, so that all ranks may read.

    Args:
        folder: the run's.
        find_misfit: what keeps a state from being one of this run's, in a few words; None where nothing does.
        weights_bytes: of the network, which bounds how much is read.
    """
    return state_files.read_newest(folder, TrainingState, find_misfit, 8 * weights_bytes + _CURVES_BYTES)


def load(folder: Path) -> TrainingState | None:
    """The newest sound state, whatever network it is of."""
    return read(folder, lambda _: None, 1 << 40).state
