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
    here = bench.but(root=disk.folder / "bench")
    here.root.mkdir()
    refused, room_bytes, finished = 0, STEP_BYTES, 0
    while True:
        disk.leave(room_bytes)
        try:
            with disk_errors.explain_write_errors():
                work = here.make()
            break
        except errors.DiskError:
            refused += 1
        before, finished = finished, len(here.units())
        assert before <= finished
        if before == finished:
            room_bytes += STEP_BYTES
    assert refused >= 4, "the disk was never full in the middle"
    assert computed(work) == 7 - finished
    assert here.digests() == whole.digests()
    assert not list(here.root.rglob("*.partial"))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_command_ends_in_one_line_and_goes_on(bench, whole, disk, workers):
    here = bench.but(root=disk.folder / "bench", cache=bench.cache | {"workers": workers})
    disk.leave(5 * STEP_BYTES)
    line = here.refused()
    assert line.startswith(f"error: {disk.folder}")
    assert f"({os.strerror(errno.ENOSPC)}). Make room" in line
    kept = len(here.units())
    assert 0 < kept < 7
    disk.leave(None)
    assert computed(here.run()) == 7 - kept
    assert here.digests() == whole.digests()
