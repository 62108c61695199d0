"""Pixels in, logits out.

Shapes: B views, C classes, H and W pixels.
"""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch

from teachonce.format import schema


class Normaliser:
    """uint8 pixels as a network wants them, on its device; in channels-last order, which convolutions prefer."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device) -> None:
        self._device = device
        # (x / 255 − mean) / std as one multiply-add.
        std_C11 = torch.tensor(std, device=device).view(-1, 1, 1)
        self._scale_C11 = 1 / (255 * std_C11)
        self._shift_C11 = -torch.tensor(mean, device=device).view(-1, 1, 1) / std_C11

    def __call__(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) on any device → float32 (B, 3, H, W) on this one."""
        # As they lie first: a device turns bytes faster than a CPU, and need not be waited for where they are pinned.
        pixels = pixels_B3HW.to(self._device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        return torch.addcmul(self._shift_C11, pixels.float(), self._scale_C11)


class Predictor:
    """A teacher that answers uint8 views; normalisation is its own affair and happens on its device."""

    def __init__(
        self,
        network: torch.nn.Module,
        identity: schema.Teacher,
        device: torch.device,
        *,
        compiled_for: int | None = None,
    ) -> None:
        """Take a network.

        Args:
            network: in evaluation mode, on the device.
            identity: its input and arithmetic.
            device: where it answers.
            compiled_for: compile the network in place, for exactly so many views; a batch is cut into parts of them,
                and the last one filled up with views of zeros, whose answers are dropped. None leaves it as it is.
        """
        self.device = device
        """Where it answers."""
        self.size = identity.size
        """Side of a view in pixels."""
        kind = device.type if device.type != "cpu" else f"cpu, {torch.get_num_threads()} threads"
        self.label = f"{kind}, compiled" if compiled_for else kind
        """Device type, thread count and whether the network is compiled: runs that agree in it agree to the bit."""
        self._network = network
        self._views = compiled_for
        self._precision = identity.precision
        self._normal = Normaliser(identity.mean, identity.std, device)
        if compiled_for:
            network.compile(dynamic=False)

    @property
    def compiled(self) -> bool:
        """Is the network compiled? Its answers then round otherwise."""
        return self._views is not None

    def logits(self, views_B3HW: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits of a batch of views.

        Args:
            views_B3HW: uint8 (B, 3, H, W).

        Returns:
            float32 (B, C).
        """
        return self.answer(torch.from_numpy(views_B3HW)).cpu().numpy()

    # Not in inference mode: a student's loss may be taken of the answer.
    @torch.no_grad()
    def answer(self, views_B3HW: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of views, left on the device.

        Args:
            views_B3HW: uint8, or floating of whole levels (B, 3, H, W), on any device.

        Returns:
            float32 (B, C).
        """
        if self._views is None:
            return self._forward(views_B3HW)
        parts = [self._forward(self._full(part))[: len(part)] for part in views_B3HW.split(self._views)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _forward(self, views_B3HW: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            answers: torch.Tensor = self._network(self._normal(views_B3HW))
        return answers.float()

    def _full(self, views_B3HW: torch.Tensor) -> torch.Tensor:
        """As many views as the network is compiled for, on the device."""
        views = views_B3HW.to(self.device, non_blocking=True)
        missing = (self._views or 0) - len(views)
        return torch.cat([views, views.new_zeros(missing, *views.shape[1:])]) if missing else views

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
