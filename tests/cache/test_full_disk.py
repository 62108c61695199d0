"""A disk that is full at any moment of the cache stage: one line, nothing lost, and the same command goes on."""

import errno
import os

import pytest

from teachonce.core import disk_errors, errors

pytestmark = pytest.mark.slow
STEP_BYTES = 16 << 10


def computed(work: dict) -> int:
    return work["val"]["units_computed"] + work["train"]["units_computed"]


def test_at_every_moment(bench, whole, disk):
    """Room is given in small steps until the run gets through; what was finished is there for the next try."""
    full = bench.but(root=disk.folder / "bench")
    full.root.mkdir()
    refused, room_bytes, finished = 0, STEP_BYTES, 0
    while True:
        disk.leave(room_bytes)
        try:
            with disk_errors.explain_write_errors():
                work = full.make()
            break
        except errors.DiskError:
            refused += 1
        before, finished = finished, len(full.units())
        assert before <= finished
        if before == finished:
            room_bytes += STEP_BYTES
    assert refused >= 4, "the disk was never full in the middle"
    assert computed(work) == 7 - finished
    assert full.digests() == whole.digests()
    assert not list(full.root.rglob("*.partial"))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_command_ends_in_one_line_and_goes_on(bench, whole, disk, workers):
    full = bench.but(root=disk.folder / "bench", cache=bench.cache | {"workers": workers})
    disk.leave(5 * STEP_BYTES)
    line = full.refused()
    assert line.startswith(f"error: {disk.folder}")
    assert f"({os.strerror(errno.ENOSPC)}). Make room" in line
    finished = len(full.units())
    assert 0 < finished < 7
    disk.leave(None)
    assert computed(full.run()) == 7 - finished
    assert full.digests() == whole.digests()
