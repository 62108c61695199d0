"""Mixup and cutmix of a batch, on its device: the pixels and labels of each view with those of its partner.

A batch is a row of mix groups: m views of one image, then m views of its partner under the same aug seeds. So a view's
partner is found by its place alone, and whatever cuts a batch (lanes, ranks, microbatches) must cut between mix groups:
a view parted from its partner would be mixed with another image than the teacher was shown.

Shapes: B views, C classes, H and W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from teachonce.shards import index
from teachonce.views import mixing


@dataclass(frozen=True, slots=True)
class MixTensors:
    """How the views of a batch are mixed."""

    keep_B: Tensor
    """float32 (B,): weight of the view's own image, 1 where it is not mixed."""
    box_B4: Tensor
    """float64 (B, 4): left, top, right, bottom of the partner's part as fractions of the side, at every size."""
    is_cut_B: Tensor
    """bool (B,): whether the box counts."""
    repeats: int
    """m: views of an image, which stand side by side."""

    def map(self, change: Callable[[Tensor], Tensor]) -> "MixTensors":
        """The same with each tensor changed, for instance moved to a device."""
        return MixTensors(change(self.keep_B), change(self.box_B4), change(self.is_cut_B), self.repeats)


def from_draws(mixings: Sequence[mixing.MixParams], repeats: int) -> MixTensors:
    """The draws of B views as tensors."""
    return MixTensors(
        keep_B=torch.tensor([each.weight for each in mixings]),
        box_B4=torch.tensor([each.box or (0.0, 0.0, 0.0, 0.0) for each in mixings], dtype=torch.float64),
        is_cut_B=torch.tensor([each.box is not None for each in mixings]),
        repeats=repeats,
    )


def concatenate_mixes(parts: Sequence[MixTensors]) -> MixTensors:
    """Parts of a batch, one after the other."""
    return MixTensors(
        keep_B=torch.cat([part.keep_B for part in parts]),
        box_B4=torch.cat([part.box_B4 for part in parts]),
        is_cut_B=torch.cat([part.is_cut_B for part in parts]),
        repeats=parts[0].repeats,
    )


def swap_partners(values: Tensor, repeats: int) -> Tensor:
    """What stands at each view's partner: (B, …)."""
    shape = values.shape[1:]
    return values.view(-1, 2, repeats, *shape).flip(1).view(-1, *shape)


def mix_pixels(pixels_B3HW: Tensor, mix: MixTensors) -> Tensor:
    """The mixed views, equal on every device to what `views.mixing.blend` makes: float32 (B, 3, H, W), whole levels.

    Args:
        pixels_B3HW: uint8 (B, 3, H, W).
        mix: on the same device.
    """
    image_B3HW, partner_B3HW = pixels_B3HW.float(), swap_partners(pixels_B3HW, mix.repeats).float()
    size = pixels_B3HW.shape[-1]
    # As `views.mixing.box_px`: the teacher's box at this size is rounded so.
    is_inside_B1HW = _is_inside((mix.box_B4 * size + 0.5).floor().long(), size)
    weight_B111 = mix.keep_B.view(-1, 1, 1, 1)
    weight_B1HW = torch.where(mix.is_cut_B.view(-1, 1, 1, 1), (~is_inside_B1HW).float(), weight_B111)
    # Exact in float32, in whatever order: a weight is a multiple of 2^-12. In place: each pass over DeiT's batch takes
    # a GPU a third of a millisecond.
    return torch.lerp(partner_B3HW, image_B3HW, weight_B1HW).add_(0.5).floor_()


def _is_inside(box_B4: Tensor, size: int) -> Tensor:
    """Whether a pixel lies in the box: bool (B, 1, size, size)."""
    coordinate = torch.arange(size, device=box_B4.device)
    left, top, right, bottom = (edge.view(-1, 1) for edge in box_B4.unbind(dim=1))
    across_BW = (coordinate >= left) & (coordinate < right)
    down_BH = (coordinate >= top) & (coordinate < bottom)
    return (down_BH.unsqueeze(2) & across_BW.unsqueeze(1)).unsqueeze(1)


def mix_labels(label_B: Tensor, num_classes: int, smoothing: float, mix: MixTensors | None) -> Tensor:
    """What the class head learns: float32 (B, C), smoothed, and mixed with the weights of the pixels.

    Args:
        label_B: int64 (B,); `shards.index.UNLABELLED` where there is none.
        num_classes: C.
        smoothing: probability that is spread over all classes.
        mix: None where nothing is mixed.

    Source: timm `data/mixup.py`, mixup_target.
    """
    # Where there is no label, any row will do: the loss leaves it out.
    smoothed_BC = F.one_hot(label_B.clamp(min=0), num_classes).float() * (1 - smoothing) + smoothing / num_classes
    if mix is None:
        return smoothed_BC
    weight_B1 = mix.keep_B.unsqueeze(1)
    return weight_B1 * smoothed_BC + (1 - weight_B1) * swap_partners(smoothed_BC, mix.repeats)


def has_label(label_B: Tensor, mix: MixTensors | None) -> Tensor:
    """Whether a view has a label; a mixed one, whether both of its images have: bool (B,)."""
    is_labelled_B = label_B != index.UNLABELLED
    if mix is None:
        return is_labelled_B
    return is_labelled_B & (swap_partners(is_labelled_B, mix.repeats) | (mix.keep_B == 1))
