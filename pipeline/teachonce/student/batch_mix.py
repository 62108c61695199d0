"""Mixup and cutmix of a batch, on its device: the pixels and labels of each view with those of its partner.

A batch is a row of atoms: m views of one image, then m views of its partner under the same aug seeds.

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
class Mix:
    """How the views of a batch are mixed."""

    own: Tensor
    """float32 (B,): weight of the view's own image, 1 where it is not mixed."""
    box: Tensor
    """float64 (B, 4): left, top, right, bottom of the partner's part as fractions of the side, at every size."""
    cut: Tensor
    """bool (B,): whether the box counts."""
    repeats: int
    """m."""

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Mix":
        """The same with another form, or in another place, of its tensors."""
        return Mix(change(self.own), change(self.box), change(self.cut), self.repeats)


def of(drawn: Sequence[mixing.MixParams], repeats: int) -> Mix:
    """The draws of B views."""
    return Mix(
        own=torch.tensor([one.weight for one in drawn]),
        box=torch.tensor([one.box or (0.0, 0.0, 0.0, 0.0) for one in drawn], dtype=torch.float64),
        cut=torch.tensor([one.box is not None for one in drawn]),
        repeats=repeats,
    )


def join(parts: Sequence[Mix]) -> Mix:
    """Parts of a batch, one after the other."""
    own, box, cut = (torch.cat([getattr(part, name) for part in parts]) for name in ("own", "box", "cut"))
    return Mix(own, box, cut, parts[0].repeats)


def partner(values: Tensor, repeats: int) -> Tensor:
    """What stands at each view's partner: (B, …)."""
    rest = values.shape[1:]
    return values.view(-1, 2, repeats, *rest).flip(1).view(-1, *rest)


def pixels(pixels_B3HW: Tensor, found: Mix) -> Tensor:
    """The mixed views, equal on every device to what `views.mix.blend` makes: float32 (B, 3, H, W) of whole levels.

    Args:
        pixels_B3HW: uint8 (B, 3, H, W).
        found: on the same device.
    """
    own_B3HW, other_B3HW = pixels_B3HW.float(), partner(pixels_B3HW, found.repeats).float()
    size = pixels_B3HW.shape[-1]
    # As `views.mix.box_px`.
    inside_B1HW = _inside((found.box * size + 0.5).floor().long(), size)
    weight_B111 = found.own.view(-1, 1, 1, 1)
    weight_B1HW = torch.where(found.cut.view(-1, 1, 1, 1), (~inside_B1HW).float(), weight_B111)
    # Exact in float32, in whatever order: a weight is a multiple of 2^-12. In place: each pass over DeiT's batch takes
    # a GPU a third of a millisecond.
    return torch.lerp(other_B3HW, own_B3HW, weight_B1HW).add_(0.5).floor_()


def _inside(box_B4: Tensor, size: int) -> Tensor:
    """Whether a pixel lies in the box: bool (B, 1, size, size)."""
    at = torch.arange(size, device=box_B4.device)
    left, top, right, bottom = (edge.view(-1, 1) for edge in box_B4.unbind(dim=1))
    across_BW, down_BH = (at >= left) & (at < right), (at >= top) & (at < bottom)
    return (down_BH.unsqueeze(2) & across_BW.unsqueeze(1)).unsqueeze(1)


def labels(label_B: Tensor, num_classes: int, smoothing: float, found: Mix | None) -> Tensor:
    """What the class head learns: float32 (B, C), smoothed, and mixed with the weights of the pixels.

    Source: timm `data/mixup.py`, mixup_target.
    """
    # Where there is no label, any row will do: the loss leaves it out.
    own_BC = F.one_hot(label_B.clamp(min=0), num_classes).float() * (1 - smoothing) + smoothing / num_classes
    if found is None:
        return own_BC
    weight_B1 = found.own.unsqueeze(1)
    return weight_B1 * own_BC + (1 - weight_B1) * partner(own_BC, found.repeats)


def known(label_B: Tensor, found: Mix | None) -> Tensor:
    """Whether a view has a label; a mixed one, whether both of its images have: bool (B,)."""
    own_B = label_B != index.UNLABELLED
    if found is None:
        return own_B
    return own_B & (partner(own_B, found.repeats) | (found.own == 1))
