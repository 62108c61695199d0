"""What DVC does around the stages: its queue, its cache on another disk, its death."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import clones
import pytest
import yaml

from teachonce.core import files
from teachonce.student import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1200)]


def start(folder: Path, finished: clones.Project | None = None) -> clones.Project:
    """A project with one student."""
    here = clones.start(folder, finished)
    here.edit("params.yaml", lambda data: data.update(students={"soft": data["students"]["soft"]}))
    here.commit("one student")
    return here


KILL = """
import os, signal
from pathlib import Path
import ruamel.yaml

if os.environ.get("KILL_AFTER") and not os.environ.get("DVC_STAGE"):
    dump = ruamel.yaml.YAML.dump
    left = [int(os.environ["KILL_AFTER"])]

    def last(self, data, stream=None, **more):
        if Path(str(getattr(stream, "name", ""))).name == "dvc.lock":
            left[0] -= 1
            if left[0] < 0:
                stream.write(os.environ.get("KILL_TEXT", ""))
                stream.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        return dump(self, data, stream, **more)

    ruamel.yaml.YAML.dump = last
"""


@pytest.mark.parametrize(
    "text",
    [pytest.param("", id="empty"), pytest.param("schema: '2.0'\nsta", id="cut")],
)
@pytest.mark.nightly
def test_a_kill_while_dvc_writes_its_lock_file_costs_nothing(tmp_path, text):
    """DVC opens dvc.lock for writing, which empties it, and is killed at that moment, or before all of it is out.

    It writes its list of running processes in the same way.
    """
    here = start(tmp_path / "project")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(KILL)
    plain = dict(here.environment)
    here.environment |= {"PYTHONPATH": str(tmp_path / "site"), "KILL_AFTER": "5", "KILL_TEXT": text}
    killed = here.run("dvc", "repro", "audit")
    assert killed.returncode == -signal.SIGKILL
    assert (here.folder / "dvc.lock").read_text() == text
    done = re.findall(r"Running stage '([^']+)'", killed.stdout)
    assert done == ["check", "prepare", "check_shards", "teacher", "cache", "audit"]
    here.environment = plain
    assert "dvc.lock" in here.run("dvc", "repro").stderr, "DVC does not go on by itself"
    running = here.folder / ".dvc/tmp/rwlock"
    running.write_text(text)
    said = here.do("make", "--old-file", ".venv/installed", "demo")
    assert "dvc.lock: is damaged" in said
    assert ".dvc/tmp/rwlock: is damaged" in said
    assert set(re.findall(r"Running stage '([^']+)'", said)) == {"train@soft", "evaluate@soft", "report"}
    assert "is damaged" not in here.do("make", "--old-file", ".venv/installed", "demo")
    running.write_text(text)
    assert "Unable to read RWLock-file" in here.run("dvc", "repro").stderr, "nor from this"


@pytest.fixture
def other_disk(tmp_path):
    other = Path("/dev/shm")  # noqa: S108
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system only")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        yield Path(folder)


@pytest.mark.nightly
def test_a_cache_of_dvc_on_another_disk(tmp_path, other_disk):
    """A small home and a big disk: what DVC cannot link hard it links by name."""
    here = start(tmp_path / "project")
    here.do("dvc", "cache", "dir", str(other_disk / "cache"))
    here.do("dvc", "repro")
    stores = here.folder / "artifacts/cache"
    assert (stores / "train.zarr/zarr.json").is_symlink()
    report = here.folder / "artifacts/audit.json"
    assert report.is_symlink()
    assert json.loads(report.read_text())["findings"] == []
    # A seed more, by hand and by DVC; and back.
    here.edit("configs/views/digits.yaml", lambda data: data.update(aug_seeds=3))
    assert here.ran("dvc", "repro", "audit") == {"cache", "audit"}
    assert here.teacher_runs() == 3
    audit = "-m stages.audit --cache artifacts/cache --shards artifacts/shards --out artifacts/audit"
    audit += " --report artifacts/audit.json"
    assert "no findings" in here.do(sys.executable, *audit.split())
    assert not report.is_symlink(), "it was replaced, and what it led to was left alone"
    # What lies behind a link is looked at as any file is.
    (stored,) = (stores / "train.zarr/logits/c/0/0/0").iterdir()
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    target = other_disk / "damaged"
    target.write_bytes(data)
    stored.unlink()
    stored.symlink_to(target)
    done = here.run(sys.executable, *audit.split())
    assert done.returncode == 1
    assert f"{stored.relative_to(here.folder)}: " in done.stdout
    assert "1 findings" in done.stdout


def test_a_run_in_a_workspace_of_dvc_runs_its_own_package(tmp_path):
    """Where the environment was installed from another checkout, as here, or from the repository itself."""
    here = start(tmp_path / "project")
    command = here.folder / "pipeline/teachonce/check/check_command.py"
    edited = re.sub(r"^_DONE = .*$", '_DONE = b"by the edited module"', command.read_text(), flags=re.MULTILINE)
    command.write_text(edited)
    here.do("dvc", "exp", "run", "--temp", "-n", "edited", "check")
    assert not (here.folder / "artifacts").exists()
    stored = [path.read_bytes() for path in (here.folder / ".dvc/cache/files").rglob("*") if path.is_file()]
    assert stored == [b"by the edited module"]


class Queue:
    """A project whose runs are DVC's, in a workspace of their own."""

    def __init__(self, folder: Path, finished: clones.Project) -> None:
        self.project = start(folder, finished)
        self.project.do("dvc", "repro", "cache")
        self.project.commit("a cache")
        self.train = self.project.folder / ".teachonce/train"

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["dvc", *words],
            cwd=self.project.folder,
            env=self.project.environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def work(self) -> None:
        """Start a worker of the queue, which inherits what it writes to."""
        self.project.do("sh", "-c", "dvc queue start > queue.log 2>&1")

    def saved(self) -> int:
        """Most steps in a checkpoint."""
        states = (checkpoint.load(path) for path in self.train.glob("*"))
        return max((state.step for state in states if state), default=0)

    def units(self) -> dict[str, tuple[int, int]]:
        """Finished units, and when each was computed."""
        records = (self.project.folder / ".teachonce/units").glob("*/unit.json")
        return {path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in records}

    def cost(self, name: str, path: str = "train/soft") -> dict[str, object]:
        """What a stage of an experiment cost: DVC keeps the file, and its lock in git tells which one it is."""
        listed = self.project.do("git", "for-each-ref", "--format=%(refname)", "refs/exps")
        (ref,) = [line for line in listed.splitlines() if line.endswith(f"/{name}")]
        stages = yaml.safe_load(self.project.do("git", "show", f"{ref}:dvc.lock"))["stages"].values()
        outs = {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}
        md5 = outs[f"artifacts/costs/{path}.json"]
        return json.loads((self.project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_text())


@pytest.fixture
def queue(tmp_path, finished_project):
    made = Queue(tmp_path / "project", finished_project)
    yield made
    made.project.run("dvc", "queue", "stop", "--kill")


def wait(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.01)


LONG = "configs/student/deit_micro.yaml:epochs=200"


@pytest.mark.nightly
def test_a_killed_run_in_a_workspace_of_dvc_goes_on_from_its_checkpoint(queue):
    words = ("exp", "run", "--temp", "-n", "second", "-S", LONG, "train@soft")
    first = queue.start(*words)
    wait(lambda: queue.saved() >= 40, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (queue.project.folder / "artifacts/students").exists()
    queue.project.do("dvc", *words)
    cost = queue.cost("second")
    assert cost["resumed_at_step"] >= 40
    assert cost["steps"] > cost["resumed_at_step"]


@pytest.mark.nightly
def test_a_killed_run_of_the_queue_goes_on_and_no_unit_is_computed_twice(queue):
    here = queue.project
    more = ("-S", LONG, "-S", "configs/views/digits.yaml:aug_seeds=4")
    here.do("dvc", "exp", "run", "--queue", "-n", "first", *more, "train@soft")
    queue.work()
    wait(lambda: queue.saved() >= 40)
    pid = int(next(queue.train.glob("*/lock")).read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    assert queue.saved() < 800, "it was killed on its way"
    wait(lambda: "Failed" in here.do("dvc", "queue", "status"))
    units = queue.units()
    # Neither from what DVC keeps of finished stages.
    files.remove(here.folder / ".dvc/cache/runs")
    here.do("dvc", "exp", "run", "--queue", "-n", "second", *more, "train@soft")
    queue.work()
    wait(lambda: "Success" in here.do("dvc", "queue", "status"))
    assert queue.cost("second")["resumed_at_step"] >= 40
    assert queue.units() == units


@pytest.mark.nightly
def test_two_runs_at_once_share_what_is_computed(queue):
    """One in the folder itself, one in a workspace of DVC: the second waits for the first, and computes nothing."""
    here = queue.project
    here.edit("configs/views/digits.yaml", lambda data: data.update(aug_seeds=20))
    here.commit("more seeds")
    processes = [queue.start("repro", "train@soft"), queue.start("exp", "run", "--temp", "-n", "other", "train@soft")]
    for process in processes:
        said = process.communicate(timeout=600)[0]
        assert process.returncode == 0, said
    costs = [queue.cost("other", "cache"), json.loads((here.folder / "artifacts/costs/cache.json").read_text())]
    assert sum(cost["train"]["units_computed"] for cost in costs) == 3 * 18, costs
    objects = [path for path in (here.folder / ".teachonce/units").glob("*/logits/c/**/*") if path.is_file()]
    assert all(path.stat().st_nlink > 1 for path in objects), "linked, not copied"
