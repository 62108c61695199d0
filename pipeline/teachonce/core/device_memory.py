"""Work that may need more memory than there is: refused in a line that names what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from teachonce.core import errors

_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What a CPU and CUDA's libraries say: known by text alone, as they raise a plain RuntimeError like any bug."""


@contextmanager
def refuse_out_of_memory(where: object, key: str, value: object, cure: str) -> Iterator[None]:
    """Work on a device, whose batch may be too large for it.

    Args:
        where: the file of the configuration.
        key: what decides how much memory is needed.
        value: what the key is set to.
        cure: what to change.

    Raises:
        ConfigError: the work ran out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(text in str(error) for text in _MESSAGES):
            raise
        condition = "one that the device's memory holds"
        raise errors.ConfigError.for_value(where, key, condition, value, cure) from error
