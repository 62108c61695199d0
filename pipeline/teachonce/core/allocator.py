"""How a process's memory is kept: what tensors free serves the next ones, instead of going back to the system.

glibc maps a large block anew each time, and the system fills its pages in one by one: on a CPU that takes as long as a
small network's arithmetic. With these settings a process holds what it needed at most. Without glibc, nothing changes.
"""

import contextlib
import ctypes

_INT_MAX = 2**31 - 1
# By the numbers of glibc's malloc.h. One arena, as a thread's own is made of pieces too small for a batch; no blocks
# of their own and no trimming, as both would give the pages back, to be filled in anew for the next batch.
_OPTIONS = {"MALLOC_ARENA_MAX": (-8, 1), "MALLOC_MMAP_MAX_": (-4, 0), "MALLOC_TRIM_THRESHOLD_": (-1, _INT_MAX)}

ENVIRONMENT = {name: str(value) for name, (_, value) in _OPTIONS.items()}
"""The same for a process that is about to start; needed where threads are there before any code of ours."""


def keep_freed_memory() -> None:
    """Keep freed memory from here on; to be called before the process has threads."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _OPTIONS.values():
            mallopt(option, value)
