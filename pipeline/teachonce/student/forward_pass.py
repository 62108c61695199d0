"""From uint8 views to both heads' logits, as one module.

DistributedDataParallel wraps it, and compiling it fuses mix and normalisation with the first layer.

Shapes: B views, C classes, H and W pixels.
"""

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from teachonce.student import batch_mix, process_group, student_model, student_spec


class ForwardPass(torch.nn.Module):
    """Mix, normalise, and both heads."""

    def __init__(self, network: torch.nn.Module, student: student_spec.Student, device: torch.device) -> None:
        super().__init__()
        self.network = network
        # Not buffers, which ranks would send each other.
        self.mean_C11, self.std_C11 = (
            torch.tensor(value, device=device).view(3, 1, 1) * 255
            for value in (student.config.mean, student.config.std)
        )

    def forward(self, pixels_B3HW: Tensor, mix: batch_mix.MixTensors | None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, C) of the class head and, where there is one, of the distillation head."""
        views_B3HW = batch_mix.mix_pixels(pixels_B3HW, mix) if mix else pixels_B3HW.float()
        return student_model.head_logits(self.network, views_B3HW.sub_(self.mean_C11).div_(self.std_C11))


def build_forward(
    network: torch.nn.Module, student: student_spec.Student, world: process_group.World
) -> torch.nn.Module:
    """The forward pass, compiled where the configuration asks for it; under a launcher, of all ranks together.

    Args:
        network: on the world's device.
        student: its normalisation, and whether anything teaches its token.
        world: who trains.

    Raises:
        PeerError: a rank is gone.
    """
    forward: torch.nn.Module = ForwardPass(network, student, world.device)
    if student.config.compile:
        # In place: names of weights stay. Batches are padded to one size, whatever they hold.
        forward.compile(dynamic=False)
    if not world.launched:
        return forward
    with world.peer_errors():
        # Its backward pass leaves on every rank the mean over the ranks of each gradient: so a rank's loss, a sum over
        # its part of the global mean, is multiplied by their number (`Trainer`), and the mean is a sum again.
        return DistributedDataParallel(
            forward,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            # The one case in which weights have no part in the loss: a token that nothing teaches.
            find_unused_parameters=student.spec.has_token and student.spec.kind == "none",
        )
