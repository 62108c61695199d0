"""The forward pass of a teacher: uint8 pixels in, float32 logits out.

Shapes: B views, C classes, H and W pixels.
"""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch

from teachonce.format import schema


class Normaliser:
    """Turns uint8 pixels into a network's input on its device, in channels-last order, which convolutions prefer."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device) -> None:
        self._device = device
        # (x / 255 − mean) / std as one multiply-add: a pass over the pixels instead of three.
        std_C11 = torch.tensor(std, device=device).view(-1, 1, 1)
        self._scale_C11 = 1 / (255 * std_C11)
        self._shift_C11 = -torch.tensor(mean, device=device).view(-1, 1, 1) / std_C11

    def __call__(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) on any device → float32 (B, 3, H, W) on this one."""
        # Copied as bytes and in the order in which they lie, then turned on the device: a quarter of float32's bytes to
        # copy, and from pinned memory nobody waits for it.
        pixels = pixels_B3HW.to(self._device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        return torch.addcmul(self._shift_C11, pixels.float(), self._scale_C11)


class Predictor:
    """A teacher from uint8 views to logits; it normalises the pixels itself, on its device."""

    def __init__(
        self,
        network: torch.nn.Module,
        identity: schema.Teacher,
        device: torch.device,
        *,
        compiled_for: int | None = None,
    ) -> None:
        """Wrap a network, and compile it where asked.

        Args:
            network: in evaluation mode, on the device.
            identity: says its input size, normalisation and precision.
            device: where the forward pass runs.
            compiled_for: compile the network in place, for exactly so many views; a batch is cut into parts of them,
                and the last one filled up with views of zeros, whose answers are dropped. None leaves it as it is.
        """
        self.device = device
        """Device of the forward pass."""
        self.size = identity.size
        """Side of a view in pixels."""
        device_label = device.type if device.type != "cpu" else f"cpu, {torch.get_num_threads()} threads"
        self.label = f"{device_label}, compiled" if compiled_for else device_label
        """Device type, thread count and whether the network is compiled: runs that agree in it agree to the bit."""
        self._network = network
        self._compiled_batch = compiled_for
        self._precision = identity.precision
        self._normalise = Normaliser(identity.mean, identity.std, device)
        if compiled_for:
            network.compile(dynamic=False)

    @property
    def compiled(self) -> bool:
        """Whether the network is compiled, and so rounds otherwise."""
        return self._compiled_batch is not None

    def logits(self, views_B3HW: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits of a batch of views.

        Args:
            views_B3HW: uint8 (B, 3, H, W).

        Returns:
            float32 (B, C).
        """
        return self.answer(torch.from_numpy(views_B3HW)).cpu().numpy()

    # Not in inference mode, whose tensors autograd refuses: live training takes a student's loss of these logits.
    @torch.no_grad()
    def answer(self, views_B3HW: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of views, left on the device.

        Args:
            views_B3HW: uint8, or floating of whole levels (B, 3, H, W), on any device.

        Returns:
            float32 (B, C).
        """
        # A compiled network is one for a single shape. Another shape would compile for minutes, or run code that rounds
        # otherwise, so that a unit's last batch would differ from the others.
        if self._compiled_batch is None:
            return self._forward(views_B3HW)
        logits = [self._forward(self._fill_up(part))[: len(part)] for part in views_B3HW.split(self._compiled_batch)]
        return torch.cat(logits) if len(logits) > 1 else logits[0]

    def _forward(self, views_B3HW: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            answers: torch.Tensor = self._network(self._normalise(views_B3HW))
        return answers.float()

    def _fill_up(self, views_B3HW: torch.Tensor) -> torch.Tensor:
        """The views on the device, filled up with zeros to as many as the network is compiled for."""
        views = views_B3HW.to(self.device, non_blocking=True)
        missing = (self._compiled_batch or 0) - len(views)
        return torch.cat([views, views.new_zeros(missing, *views.shape[1:])]) if missing else views

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
