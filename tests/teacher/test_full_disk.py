"""A disk that is full at any moment of the cache stage: one line, nothing lost, and the same command goes on."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.base import errors, files

pytestmark = pytest.mark.slow
DISK_BYTES = 4 << 20
STEP_BYTES = 16 << 10


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A filesystem of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(disk: Path, room_bytes: int) -> None:
    """Fill the disk up to some room."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    state = os.statvfs(disk)
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(1, state.f_bavail * state.f_bsize - room_bytes))


def computed(work: dict) -> int:
    return work["val"]["units_computed"] + work["train"]["units_computed"]


def test_at_every_moment(bench, whole, disk):
    """Room is given in small steps until the run gets through; what was finished is there for the next try."""
    here = bench.but(root=disk / "bench")
    here.root.mkdir()
    refused, room_bytes, finished = 0, STEP_BYTES, 0
    while True:
        leave(disk, room_bytes)
        try:
            with files.full_disk():
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
    here = bench.but(root=disk / "bench", cache=bench.cache | {"workers": workers})
    leave(disk, 9 * STEP_BYTES)
    line = here.refused()
    assert line.startswith(f"error: {disk}")
    assert f"({os.strerror(errno.ENOSPC)}). Make room" in line
    kept = len(here.units())
    assert 0 < kept < 7
    (disk / "filler").unlink()
    assert computed(here.run()) == 7 - kept
    assert here.digests() == whole.digests()
