"""Freed memory serves the next tensors: the system fills in its pages once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = 64 << 20
ROUNDS = 8

FAULTS = f"""
import resource, sys
from pipeline.base import memory
if sys.argv[1] == "keep":
    memory.keep()
bytearray(b"x") * {BLOCK}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    bytearray(b"x") * {BLOCK}
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str, **environment: str) -> int:
    """Pages that the system filled in while a block was taken and freed again and again."""
    command = [sys.executable, "-c", FAULTS, way]
    return int(subprocess.check_output(command, cwd=ROOT, env={**os.environ, **environment}, text=True))


@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="of glibc alone")
def test_pages_are_filled_in_once():
    from pipeline.base import memory

    each_time = faults("give back")
    # With huge pages a block has 32 of them, else 16,384.
    assert each_time >= ROUNDS * BLOCK // (2 << 20)
    assert faults("keep") < each_time / ROUNDS
    assert faults("by environment", **memory.ENVIRONMENT) < each_time / ROUNDS
