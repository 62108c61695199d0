"""Where a run stands, in one file that is whole or not there."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.base import errors, files

_NAME = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class State:
    """Everything needed to go on; no generator's state, since every step seeds its own."""

    step: int
    """Steps done."""
    model: dict[str, Any]
    """Weights."""
    ema: dict[str, Any]
    """Averaged weights."""
    optimizer: dict[str, Any]
    """Moments."""
    points: list[tuple[int, dict[str, float]]]
    """The curves so far."""


def save(folder: Path, state: State) -> None:
    """Write the state in one rename.

    Raises:
        NumericsError: it holds a number that is not finite; what was saved before stays.
    """
    tensors = [*state.model.values(), *state.ema.values()]
    for of_weight in state.optimizer["state"].values():
        tensors += of_weight.values()
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise errors.NumericsError(
            f"train: not all weights are finite after {state.step} steps. Lower lr, or use float32; {folder / _NAME} "
            "is kept as it was"
        )
    buffer = io.BytesIO()
    torch.save({name: getattr(state, name) for name in State.__slots__}, buffer)
    files.write_bytes(folder / _NAME, buffer.getvalue())


def load(folder: Path) -> State | None:
    """The last state, or None where there is none yet."""
    path = folder / _NAME
    if not path.is_file():
        return None
    return State(**torch.load(path, map_location="cpu", weights_only=True))
