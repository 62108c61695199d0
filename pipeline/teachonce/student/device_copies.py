"""Batches on their way to a GPU: each is copied beside the step before it."""

from collections.abc import Iterator, Sequence

import torch

from teachonce.core import errors
from teachonce.student import batching


def prefetch(groups: Iterator[Sequence[batching.Batch]], device: torch.device) -> Iterator[batching.Batch]:
    """Batches on the device, the next one always on its way.

    Args:
        groups: the parts of each batch, in page-locked memory.
        device: a GPU.

    Raises:
        TeachonceError: as `groups` does, when the batches before have been given out.
    """
    stream = torch.cuda.Stream(device)
    # One batch is under way while the one before it is at work: two at a time on the device, however fast the loader.
    under_way: tuple[batching.Batch, torch.cuda.Event] | None = None
    refusal: errors.TeachonceError | None = None
    while refusal is None:
        group: Sequence[batching.Batch] | None = None
        try:
            group = next(groups, None)
        except errors.TeachonceError as error:
            refusal = error
        # Begun before the batch ahead of it is given out: while that one is trained on, this copy is under way.
        following = _copy(group, device, stream) if group else None
        if under_way:
            yield _await_copy(*under_way)
        if following is None and refusal is None:
            return
        under_way = following
    raise refusal


def _copy(
    group: Sequence[batching.Batch], device: torch.device, stream: torch.cuda.Stream
) -> tuple[batching.Batch, torch.cuda.Event]:
    with torch.cuda.stream(stream):
        moved = batching.concatenate([part.to(device) for part in group])
        return moved, stream.record_event()


def _await_copy(moved: batching.Batch, event: torch.cuda.Event) -> batching.Batch:
    current = torch.cuda.current_stream(moved.pixels.device)
    current.wait_event(event)
    # Made on one stream and used on another: the allocator must not give the memory away before both are done with it.
    for tensor in moved.tensors():
        tensor.record_stream(current)
    return moved
