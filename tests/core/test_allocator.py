"""Freed memory stays with the process, to serve the next tensors."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from teachonce.core import allocator

ROOT = Path(__file__).parents[2]
BLOCK = 64 << 20

# By glibc's own count: not every kernel counts the pages that it fills in.
FREE = f"""
import ctypes, sys
from teachonce.core import allocator

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2
if sys.argv[1] == "keep":
    allocator.keep_freed_memory()
bytearray(b"x") * {BLOCK}
print(mallinfo2().fordblks)
"""


def free_bytes(way: str, **environment: str) -> int:
    """Bytes that the allocator holds for the next blocks, after a large one was taken and freed."""
    # Dask leaves the environment of its workers in the process that started them.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FREE, way]
    return int(subprocess.check_output(command, cwd=ROOT, env={**plain, **environment}, text=True))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="of glibc 2.33 and later alone")
def test_freed_memory_is_kept():
    assert free_bytes("give back") < BLOCK
    assert free_bytes("keep") >= BLOCK
    assert free_bytes("by environment", **allocator.ENVIRONMENT) >= BLOCK
