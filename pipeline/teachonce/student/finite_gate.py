"""What keeps numbers that are not finite out of a student: shut on the device, read by the host some steps later.

A host that asked a GPU after each step whether all went well would wait for the step, and then the GPU for the host. So
the update asks, on the device; and once it has been refused, every later one is too, until the host has read of it.
"""

import timm.utils
import torch
from torch import Tensor


class Gate:
    """Lets an optimiser and an average of weights go on while all gradients were finite."""

    def __init__(self, optimizer: torch.optim.Optimizer, ema: timm.utils.ModelEmaV3, device: torch.device) -> None:
        """Guard a fused optimiser: torch's other ones do not look at `found_inf`.

        Args:
            optimizer: made with `fused=True`.
            ema: in float32.
            device: of the weights.
        """
        self.shut = torch.zeros((), device=device)
        """float32 scalar on the device: 1 once an update was refused, else 0."""
        self._optimizer, self._ema = optimizer, ema
        # Where torch.amp's scaler leaves its finding, too: 1 keeps weights, moments and the count of steps as they are.
        optimizer.found_inf = self.shut  # type: ignore[attr-defined]

    def update(self, network: torch.nn.Module, step: int, norm: Tensor) -> None:
        """Take the optimiser's step and move the average, unless this or an earlier norm was not finite.

        Args:
            network: the weights that the optimiser changes.
            step: its number, which the average's decay depends on.
            norm: floating scalar, of the step's gradients; on the device.
        """
        # The larger of both: it never opens again. A later step would be finite, and take its weights from one that
        # should have ended the run.
        self.shut.copy_(torch.maximum(self.shut, (~norm.isfinite()).float()))
        self._optimizer.step()
        self._average(network, 1 - self._ema.get_decay(step))

    @torch.no_grad()
    def _average(self, network: torch.nn.Module, weight: float) -> None:
        """What `ModelEmaV3.update` of timm does, but for the gate, which holds for weights that are finite."""
        pairs = list(zip(self._ema.module.state_dict().values(), network.state_dict().values(), strict=True))
        averages = [average for average, _ in pairs if average.is_floating_point()]
        values = [value for average, value in pairs if average.is_floating_point()]
        # Private names, but those that timm's average is made of; a kernel for each weight would take as long again.
        moves = torch._foreach_sub(values, averages)  # noqa: SLF001
        torch._foreach_mul_(moves, (1 - self.shut) * weight)
        torch._foreach_add_(averages, moves)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
