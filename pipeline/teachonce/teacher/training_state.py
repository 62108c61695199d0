"""What a teacher's training saves after each epoch, and what of it a run goes on from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from teachonce.core import errors, state_files

_MAX_BYTES = 1 << 36

Point = dict[str, float]
"""What an epoch gave: `loss` (nats) and `top1` (share) over its augmented images, `held_back_loss` and `held_back_top1`
of the images that are held back, where there are some."""


@dataclass(frozen=True, slots=True)
class TeacherState:
    """All that the next epoch hangs on; no generator's state, since every step seeds its own."""

    model: dict[str, torch.Tensor]
    """Weights by timm's names."""
    optimizer: dict[str, Any]
    """AdamW's moments and options, as torch gives them."""
    points: list[Point]
    """What each epoch so far gave."""
    best: dict[str, torch.Tensor]
    """Weights of the epoch with the lowest loss on the images that are held back; empty where there are none."""

    def is_finite(self) -> bool:
        """Whether all weights are."""
        return all(bool(tensor.isfinite().all()) for tensor in self.model.values())


def save(folder: Path, state: TeacherState) -> None:
    """Write the state whole, beside the one before.

    Raises:
        NumericsError: a weight is not finite; what was saved before stays.
        DiskError: there is no room for it; what was saved before stays.
    """
    if not state.is_finite():
        what = f"not all weights are finite after {len(state.points)} epochs"
        raise errors.NumericsError("teacher", what, "Lower weights.lr")
    state_files.write(folder, {name: getattr(state, name) for name in TeacherState.__slots__})


def read(folder: Path, network: torch.nn.Module, epochs: int) -> TeacherState | None:
    """The newest sound state of a folder, None where a run begins; what is damaged is named and removed.

    Args:
        folder: the run's.
        network: whose weights it must have.
        epochs: of the whole run.
    """
    wanted = _signatures(network.state_dict())

    def find_misfit(state: TeacherState) -> str | None:
        if not 0 < len(state.points) <= epochs:
            return f"points must be of 1 to {epochs} epochs. Got {len(state.points)}"
        if _signatures(state.model) != wanted or (state.best and _signatures(state.best) != wanted):
            return "model and best must have the teacher's tensors. Got others"
        return None if state.is_finite() else "all weights must be finite. Got one that is not"

    recovered = state_files.read_newest(folder, TeacherState, find_misfit, _MAX_BYTES)
    state = recovered.state
    consequence = f"goes on after {len(state.points)} of {epochs} epochs" if state else "begins anew"
    state_files.remove_damaged(recovered.damaged, f"The training {consequence}")
    return state


def copy_weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The network's weights as they are now, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _signatures(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
