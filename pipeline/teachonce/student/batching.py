"""A batch of views, and parts of one.

Shapes: B views, C classes, K kept classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from teachonce.student import batch_mix


@dataclass(frozen=True, slots=True)
class Count:
    """How many views some part of a step holds, without padding."""

    views: float
    """All of them."""
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
    row: dict[str, Tensor]
    """The cache's rows: `logits` float32 (B, C), or `class_id` int64 (B, K) and `logp` float16 (B, K)."""
    count: Count
    """Of its views, or of those of the batch it was cut from; known without asking a device."""
    mix: batch_mix.Mix | None
    """How the views are mixed; None where the policy mixes nothing."""
    asked: Tensor | None = None
    """uint8 (B, 3, H, W): the same views at a live teacher's size, not yet mixed; None where a cache has answered."""

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which a copy to a GPU runs beside its work; asked by the loader."""
        return self._with(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        yield from (self.pixels, self.label, self.weight, *self.row.values())
        if self.mix:
            yield from (self.mix.own, self.mix.box, self.mix.cut)
        if self.asked is not None:
            yield self.asked

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            pixels=change(self.pixels),
            label=change(self.label),
            weight=change(self.weight),
            row={name: change(rows) for name, rows in self.row.items()},
            mix=self.mix.changed(change) if self.mix else None,
            asked=None if self.asked is None else change(self.asked),
        )


def join(parts: Sequence[Batch]) -> Batch:
    """One batch of parts, where they are."""
    if len(parts) == 1:
        return parts[0]
    mixes = [part.mix for part in parts if part.mix]
    asked = [part.asked for part in parts if part.asked is not None]
    return Batch(
        keys=tuple(key for part in parts for key in part.keys),
        pixels=torch.cat([part.pixels for part in parts]),
        label=torch.cat([part.label for part in parts]),
        weight=torch.cat([part.weight for part in parts]),
        row={name: torch.cat([part.row[name] for part in parts]) for name in parts[0].row},
        count=Count(sum(part.count.views for part in parts), sum(part.count.labelled for part in parts)),
        mix=batch_mix.join(mixes) if mixes else None,
        asked=torch.cat(asked) if asked else None,
    )
