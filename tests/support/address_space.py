"""Less memory than what is tested could claim."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def limited(headroom_bytes: int) -> Iterator[None]:
    """No more address space than the process has now and `headroom_bytes`, whoever asks for it."""
    with suppress(AttributeError):  # without glibc
        # What earlier tests freed, the process may hold (`core.allocator`), and would serve unnoticed.
        ctypes.CDLL(None).malloc_trim(0)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + headroom_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
