"""Where loader processes render: memory shared with the process that trains, and used again part after part.

Shared memory asked for anew for each part costs more than copying into it: each of its pages is cleared, and mapped by
both.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from teachonce.student import loader_processes

_SLOTS = loader_processes.AHEAD + 1
"""Of a process: what it makes ahead, and the part that is being copied."""


class PixelSlots:
    """Slots of each process, taken in turn.

    torch lets a process begin its part n + AHEAD when part n has been received. So it comes to the slot of part n again
    when part n + 1 has been received. The receiver copies part n and gives its slot back before it asks for part n + 1:
    then no process finds its next slot taken, and none has to wait.
    """

    def __init__(self, processes: int, part_shapes: Sequence[Sequence[int]]) -> None:
        """Reserve the memory.

        Args:
            processes: that take slots; 0 reserves nothing.
            part_shapes: of the pixels of a part, (B, 3, H, W) at each size.

        Raises:
            DiskError: shared memory has no room for them.
        """
        self._pixels = [
            loader_processes.share(torch.empty((processes, _SLOTS, *shape), dtype=torch.uint8)) for shape in part_shapes
        ]
        self._is_taken = loader_processes.share(torch.zeros((processes, _SLOTS), dtype=torch.bool))

    def take(self, process: int, part: int) -> list[Tensor]:
        """Where a process renders its part of that number: uint8 (B, 3, H, W) at each size, of any values.

        Raises:
            RuntimeError: the part that lies there was not copied yet.
        """
        slot = part % _SLOTS
        # A guard against a release of torch that lets a process run further ahead: a batch would hold another's pixels.
        if self._is_taken[process, slot]:
            raise RuntimeError(f"part {part} of loader process {process} would overwrite one that is in use")
        self._is_taken[process, slot] = True
        return [pixels[process, slot] for pixels in self._pixels]

    def give_back(self, part: int) -> None:
        """Say that the parts of that number, one of each process, were copied."""
        self._is_taken[:, part % _SLOTS] = False


def slot_bytes(part_shape: Sequence[int]) -> int:
    """What the slots of one process take at one size."""
    return _SLOTS * torch.Size(part_shape).numel()
