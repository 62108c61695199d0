"""Where a run stands, in one file that is whole or not there."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.base import files

_NAME = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class State:
    """Everything needed to go on; no generator's state, since every step seeds its own."""

    epoch: int
    """The next epoch."""
    model: dict[str, Any]
    """Weights."""
    ema: dict[str, Any]
    """Averaged weights."""
    optimizer: dict[str, Any]
    """Moments."""
    points: list[tuple[int, dict[str, float]]]
    """The curves so far."""


def save(folder: Path, state: State) -> None:
    """Write the state in one rename."""
    buffer = io.BytesIO()
    torch.save({name: getattr(state, name) for name in State.__slots__}, buffer)
    files.write_bytes(folder / _NAME, buffer.getvalue())


def load(folder: Path) -> State | None:
    """The last state, or None where there is none yet."""
    path = folder / _NAME
    if not path.is_file():
        return None
    return State(**torch.load(path, map_location="cpu", weights_only=True))
