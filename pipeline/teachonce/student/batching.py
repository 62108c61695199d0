"""A batch of views, and parts of one.

Shapes: B views, C classes, K kept classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from teachonce.student import batch_mix


@dataclass(frozen=True, slots=True)
class ViewCount:
    """How many views some part of a step holds, without padding: what its means are divided by."""

    views: float
    """With a label or without."""
    labelled: float
    """Those that have a label."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A global batch, or the part of it that a loader process or a rank has."""

    keys: tuple[str, ...]
    """B sample keys; empty for padding."""
    pixels: Tensor
    """uint8 (B, 3, size, size), not yet mixed."""
    label: Tensor
    """int64 (B,); `shards.index.UNLABELLED` where there is none."""
    weight: Tensor
    """float32 (B,): 1, or 0 for padding."""
    rows: dict[str, Tensor]
    """The teacher's: `logits` float32 (B, C), or `class_id` int64 (B, K) and `logp` float16 (B, K)."""
    count: ViewCount
    """Of its views, or of those of the batch it was cut from; known without asking a device."""
    mix: batch_mix.MixTensors | None
    """How the views are mixed; None where the policy mixes nothing."""
    teacher_pixels: Tensor | None = None
    """uint8 (B, 3, H, W): the same views at a live teacher's size, not yet mixed; None where the rows are a cache's."""

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which a copy to a GPU runs beside its work; torch's loader calls it."""
        return self._with(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; from page-locked memory the copy runs beside the host's work."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pixels_by_size(self) -> list[Tensor]:
        """The student's pixels, and the live teacher's where there are any."""
        return [self.pixels] if self.teacher_pixels is None else [self.pixels, self.teacher_pixels]

    def other_tensors(self) -> Iterator[Tensor]:
        """All that it holds but pixels, in the order in which `batch_packet` lays them out."""
        yield from (self.label, self.weight, *self.rows.values())
        if self.mix:
            yield from (self.mix.keep_B, self.mix.box_B4, self.mix.is_cut_B)

    def tensors(self) -> Iterator[Tensor]:
        """All that it holds."""
        yield from self.pixels_by_size()
        yield from self.other_tensors()

    def copy_pixels(self) -> "Batch":
        """The batch with its pixels in memory of their own."""
        teacher_pixels = None if self.teacher_pixels is None else self.teacher_pixels.clone()
        return replace(self, pixels=self.pixels.clone(), teacher_pixels=teacher_pixels)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            pixels=change(self.pixels),
            label=change(self.label),
            weight=change(self.weight),
            rows={name: change(array) for name, array in self.rows.items()},
            mix=self.mix.map(change) if self.mix else None,
            teacher_pixels=None if self.teacher_pixels is None else change(self.teacher_pixels),
        )


def concatenate(parts: Sequence[Batch]) -> Batch:
    """One batch of parts, one after the other, on the device where they are."""
    if len(parts) == 1:
        return parts[0]
    # Lanes stand side by side in a batch, and a part holds whole lanes: joined in order, it is the batch of one
    # process.
    mixes = [part.mix for part in parts if part.mix]
    teacher_pixels = [part.teacher_pixels for part in parts if part.teacher_pixels is not None]
    return Batch(
        keys=tuple(key for part in parts for key in part.keys),
        pixels=torch.cat([part.pixels for part in parts]),
        label=torch.cat([part.label for part in parts]),
        weight=torch.cat([part.weight for part in parts]),
        rows={name: torch.cat([part.rows[name] for part in parts]) for name in parts[0].rows},
        count=ViewCount(sum(part.count.views for part in parts), sum(part.count.labelled for part in parts)),
        mix=batch_mix.concatenate_mixes(mixes) if mixes else None,
        teacher_pixels=torch.cat(teacher_pixels) if teacher_pixels else None,
    )
