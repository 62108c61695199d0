"""Pixels in, logits out.

Shapes: B views, C classes, H and W pixels.
"""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch

from pipeline.cache import schema


class Normalise:
    """uint8 pixels as a network wants them, on its device; in channels-last order, which convolutions prefer."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device) -> None:
        self._device = device
        # (x / 255 − mean) / std as one multiply-add.
        std_C11 = torch.tensor(std, device=device).view(-1, 1, 1)
        self._scale_C11 = 1 / (255 * std_C11)
        self._shift_C11 = -torch.tensor(mean, device=device).view(-1, 1, 1) / std_C11

    def __call__(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) on any device → float32 (B, 3, H, W) on this one."""
        pixels = pixels_B3HW.to(self._device, non_blocking=True, memory_format=torch.channels_last)
        return torch.addcmul(self._shift_C11, pixels.float(), self._scale_C11)


class Predictor:
    """A teacher that answers uint8 views; normalisation is its own affair and happens on its device."""

    def __init__(self, network: torch.nn.Module, identity: schema.Teacher, device: torch.device) -> None:
        self.label = device.type if device.type != "cpu" else f"cpu, {torch.get_num_threads()} threads"
        """Device type and thread count: runs that agree in it agree to the bit."""
        self._network = network
        self._device = device
        self._precision = identity.precision
        self._normal = Normalise(identity.mean, identity.std, device)
        # float32 is float32, on a GPU too: by default its convolutions keep ten bits.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

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
        with self._autocast():
            answers: torch.Tensor = self._network(self._normal(views_B3HW))
        return answers.float()

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)
