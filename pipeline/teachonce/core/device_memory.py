"""Work that may need more memory than there is: refused in a line that names what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from teachonce.core import errors

_OTHERS = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What a CPU and CUDA's libraries say, in a plain RuntimeError."""


@contextmanager
def refuse_out_of_memory(where: object, key: str, got: object, cure: str) -> Iterator[None]:
    """Work on a device, whose batch may be too large for it.

    Args:
        where: the configuration.
        key: what decides how much memory is needed.
        got: its value.
        cure: what to change.

    Raises:
        ConfigError: it is too large.
    """
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(text in str(error) for text in _OTHERS):
            raise
        condition = "one that the device's memory holds"
        raise errors.ConfigError.for_value(where, key, condition, got, cure) from error
