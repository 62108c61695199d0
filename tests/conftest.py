"""What tests of several folders share."""

import fcntl
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import clones
import endpoint
import pytest

from teachonce.views import kernel_choice

DISK_BYTES = 4 << 20
ROOT = Path(__file__).parents[1]
# Processes that tests start run this checkout, too, wherever the environment was installed from.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "pipeline"), str(ROOT), os.environ.get("PYTHONPATH", "")])


def pytest_sessionstart(session: pytest.Session) -> None:
    # What renders is compiled before the first test: no stage that a test starts takes ten seconds for it, or says so.
    if not hasattr(session.config, "workerinput"):
        kernel_choice.chosen_kernels()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Whole pipelines first, then files by their slow tests: the longest must not be what one worker is left with.
    slow = {(item.path, item.originalname) for item in items if item.get_closest_marker("slow")}
    count = Counter(path for path, _ in slow)
    items.sort(key=lambda item: (item.path.parent != Path(__file__).parent, -count[item.path]))


@dataclass(frozen=True)
class Disk:
    """A filesystem of four megabytes."""

    folder: Path

    def leave(self, room_bytes: int | None) -> None:
        """Fill it up to some room; None empties it again."""
        filler = self.folder / "filler"
        filler.unlink(missing_ok=True)
        if room_bytes is not None:
            state = os.statvfs(self.folder)
            with filler.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, max(1, state.f_bavail * state.f_bsize - room_bytes))


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory) -> clones.Project:
    """A project in which everything has run, once for all of pytest's workers; to be copied, not changed."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "done").exists():
            return clones.Project(folder / "project")
        here = clones.start(folder / "project")
        (folder / "done").write_text(here.do("dvc", "repro"))
        return here


@pytest.fixture(scope="session")
def s3() -> Iterator[endpoint.Endpoint]:
    """An S3 endpoint; each test makes buckets of its own."""
    with endpoint.serve() as served:
        yield served
