"""A part of a batch on its way from a loader process: its pixels, and all else as one tensor, in shared memory.

What then travels through the pipe that all loader processes share is shorter than the 4,096 bytes that a pipe takes
whole or not at all. A longer message may be cut by the death of its sender, and would be waited for without end.
"""

import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from teachonce.student import batch_mix, batching, loader_processes

_ALIGNED = 64
"""Bytes that a tensor's place is a multiple of."""
_LENGTH = 8
"""Bytes of the header's length."""


def to_shared_memory(batch: batching.Batch) -> list[Tensor]:
    """A batch on the CPU: its pixels at each size, and all else as uint8 (bytes,), all of it in shared memory.

    Raises:
        DiskError: shared memory has no room for it.
    """
    pixels, others = batch.pixels_by_size(), list(batch.other_tensors())
    header = _header(batch, others)
    start = _aligned(_LENGTH + len(header))
    packed = torch.empty(start + sum(_aligned(tensor.nbytes) for tensor in others), dtype=torch.uint8)
    packed[: _LENGTH + len(header)] = torch.frombuffer(
        bytearray(len(header).to_bytes(_LENGTH, "little") + header), dtype=torch.uint8
    )
    # Padded to the alignment: torch reads bytes as another dtype only from a place that is a multiple of its size.
    for tensor in others:
        packed[start : start + tensor.nbytes] = tensor.reshape(-1).view(torch.uint8)
        start += _aligned(tensor.nbytes)
    # Here, not where it is sent: a thread of the queue does that, which would lose an error, and the batch with it.
    return [loader_processes.share(tensor) for tensor in (*pixels, packed)]


def _header(batch: batching.Batch, others: list[Tensor]) -> bytes:
    """JSON of keys, counts, and the dtype and shape of each other tensor, in the order in which their values follow."""
    return json.dumps(
        {
            "keys": batch.keys,
            "count": [batch.count.views, batch.count.labelled],
            "rows": list(batch.rows),
            "repeats": batch.mix.repeats if batch.mix else None,
            "tensors": [[str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for tensor in others],
        }
    ).encode()


def from_shared_memory(tensors: Sequence[Tensor]) -> batching.Batch:
    """The batch that `to_shared_memory` gave; its tensors are the given ones, or views of them."""
    pixels, *teacher_pixels, packed = tensors
    end = _LENGTH + int.from_bytes(packed[:_LENGTH].numpy().tobytes(), "little")
    header = json.loads(packed[_LENGTH:end].numpy().tobytes())
    others, start = [], _aligned(end)
    for name, shape in header["tensors"]:
        dtype: torch.dtype = getattr(torch, name)
        length = math.prod(shape) * dtype.itemsize
        others.append(packed[start : start + length].view(dtype).view(shape))
        start += _aligned(length)
    # In the order of `Batch.other_tensors`.
    remaining = iter(others)
    return batching.Batch(
        keys=tuple(header["keys"]),
        pixels=pixels,
        label=next(remaining),
        weight=next(remaining),
        rows={name: next(remaining) for name in header["rows"]},
        count=batching.ViewCount(*header["count"]),
        mix=batch_mix.MixTensors(next(remaining), next(remaining), next(remaining), header["repeats"])
        if header["repeats"]
        else None,
        teacher_pixels=teacher_pixels[0] if teacher_pixels else None,
    )


def _aligned(place: int) -> int:
    """The next place where a tensor may begin."""
    return -(-place // _ALIGNED) * _ALIGNED
