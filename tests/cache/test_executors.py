"""Units on real Dask workers: the same bytes; a killed worker, a deadly unit and a bad unit cost themselves alone."""

import json
import multiprocessing.spawn
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import distributed
import psutil
import pytest

from teachonce.cache import executors, worker_watch
from teachonce.core import errors
from teachonce.shards import index

pytestmark = [pytest.mark.slow, pytest.mark.system]
LIMIT_S = 120
ROOT = Path(__file__).parents[2]


def computed(cost: dict) -> int:
    return sum(cost[split]["units_computed"] for split in ("val", "train"))


def wait_for(moment) -> None:
    limit = time.monotonic() + LIMIT_S
    while not moment():
        assert time.monotonic() < limit
        time.sleep(0.01)


class Scheduler:
    """`dask scheduler` with `dask worker` processes, as a person starts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        self.file = folder / "scheduler.json"
        self.start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", self.file)
        # The file is there before its text is.
        wait_for(lambda: self.file.is_file() and self.file.stat().st_size)
        self.address = json.loads(self.file.read_text())["address"]

    def start(self, *words: object) -> subprocess.Popen:
        log = (self.folder / f"{words[0]}-{len(self.processes)}.log").open("w")
        command = [sys.executable, "-m", "distributed.cli.dask_" + str(words[0]), *map(str, words[1:])]
        process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        log.close()
        self.processes.append(process)
        return process

    def worker(self, name: str, *options: object) -> subprocess.Popen:
        return self.start("worker", self.address, "--nthreads", 1, "--name", name, "--no-dashboard", *options)

    def stop(self) -> None:
        # Asked, not killed: a nanny takes its worker along. The scheduler last.
        scheduler, *workers = self.processes
        for asked in (workers, [scheduler]):
            for process in asked:
                process.terminate()
            for process in asked:
                process.wait()


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    made = Scheduler(tmp_path)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", made.address)
    yield made
    made.stop()


def test_a_local_cluster_makes_the_same_bytes(bench, whole):
    local = bench.but(cache=bench.cache | {"workers": 2})
    assert computed(local.run()) == 7
    assert local.digests() == whole.digests()
    assert computed(local.make()) == 0


def test_a_killed_worker_and_a_bad_unit_cost_themselves_alone(bench, whole, scheduler, make_shards, tmp_path):
    make_shards(tmp_path / "shards")
    entries = index.read(tmp_path / "shards").index.shardlist
    bad = next(tmp_path / "shards" / entry.url for entry in entries if entry.url.startswith("train-000002"))
    good = bad.read_bytes()
    bad.write_bytes(good[:-1024] + b"x" * 1024)
    here = bench.but(shards=tmp_path / "shards")
    victim = scheduler.worker("victim", "--no-nanny")
    process = here.start()
    wait_for(lambda: len(here.units()) >= 2 or process.poll() is not None)
    scheduler.worker("other")
    victim.send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, stderr
    assert "error: 2 units failed; the others are kept, and the same command does only these:\n" in stderr
    assert "train-000002.tar, aug seeds 0…1: " in stderr
    assert "train-000002.tar, aug seeds 2…3: " in stderr
    assert "Traceback" not in stderr, stderr
    assert len(here.units()) == 5
    bad.write_bytes(good)
    assert computed(here.run()) == 2
    assert here.digests() == whole.digests()


DEADLY = """
import os
from teachonce.cache import unit_worker
# Dask loads a preload twice.
unit_worker.Worker.healthy = getattr(unit_worker.Worker, "healthy", unit_worker.Worker.run_unit)
def run_unit(self, job, unit):
    if (unit.tar, unit.group) == (2, 1):
        os._exit(1)
    return self.healthy(job, unit)
unit_worker.Worker.run_unit = run_unit
"""


@pytest.mark.nightly
def test_a_unit_that_kills_every_worker_fails_alone(bench, whole, scheduler, tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text(DEADLY)
    for name in ("a", "b"):
        scheduler.worker(name, "--preload", tmp_path / "deadly.py")
    process = bench.start()
    _, stderr = process.communicate(timeout=2 * LIMIT_S)
    assert process.returncode == 1, stderr
    assert "error: 1 unit failed; the others are kept" in stderr
    assert "train-000002.tar, aug seeds 2…3: every worker that tried it died." in stderr
    assert "Traceback" not in stderr, stderr
    assert len(bench.units()) == 6
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS")
    assert computed(bench.make()) == 1
    assert bench.digests() == whole.digests()


@pytest.mark.nightly
def test_a_lost_scheduler_is_one_line_and_keeps_what_is_finished(bench, scheduler, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "2s")
    scheduler.worker("a")
    process = bench.start()
    wait_for(lambda: bench.units() or process.poll() is not None)
    scheduler.processes[0].kill()
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, stderr
    assert "error: the Dask scheduler is gone. Finished units are kept: run the same command again\n" in stderr
    assert bench.units()


@pytest.fixture
def python(tmp_path, monkeypatch):
    """An interpreter that can be taken away; what runs meanwhile goes on."""
    config = Path(sys.prefix) / "pyvenv.cfg"
    if not config.is_file():
        pytest.skip("this Python is of no virtual environment")
    made = tmp_path / "env/bin/python"
    made.parent.mkdir(parents=True)
    made.symlink_to(Path(sys.executable))
    shutil.copy(config, tmp_path / "env")
    (tmp_path / "env/lib").symlink_to(Path(sys.prefix) / "lib")
    monkeypatch.setattr(sys, "executable", str(made))
    return made


@pytest.mark.nightly
def test_a_local_cluster_that_lost_its_workers_for_good_is_one_line(bench, python):
    local = bench.but(cache=bench.cache | {"workers": 2}, views=bench.views | {"aug_seeds": 40})
    process = subprocess.Popen([python, *local.command()], cwd=ROOT, text=True, stderr=subprocess.PIPE)
    wait_for(lambda: len(local.units()) >= 2 or process.poll() is not None)
    driver = psutil.Process(process.pid)
    workers = [child for child in driver.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2, process.communicate()[1]
    python.unlink()
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=2 * LIMIT_S)
    assert process.returncode == 1, stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: all workers of the local Dask cluster died, and could not be started again.")
    assert len(local.units()) >= 2
    assert not local.out.exists()


@pytest.mark.nightly
def test_a_result_lost_with_the_last_worker_is_one_line(python, monkeypatch):
    """It was finished, and not fetched yet: Dask would wait without end for somebody who computes it again."""
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(python))
    monkeypatch.setattr(worker_watch, "_POLL_S", 1)
    with (
        distributed.LocalCluster(n_workers=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster) as client,
    ):
        future = client.submit(os.getpid)
        distributed.wait([future])
        python.unlink()
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(errors.ClusterError, match="all workers of the local Dask cluster died"):
            worker_watch.wait_result(client, future)


@pytest.mark.nightly
def test_no_worker_at_a_scheduler_is_said(bench, scheduler):
    victim = scheduler.worker("victim", "--no-nanny")
    process = bench.start()
    wait_for(lambda: bench.units() or process.poll() is not None)
    victim.send_signal(signal.SIGKILL)
    lines = iter(process.stderr.readline, "")
    assert any("no Dask worker: waiting for one. Start it (dask worker ADDRESS)" in line for line in lines)
    scheduler.worker("other")
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, stderr


def test_a_worker_of_other_code_is_refused(bench, scheduler, tmp_path):
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    draw = tmp_path / "code/pipeline/teachonce/views/draw.py"
    draw.write_text(draw.read_text() + "\n_ANOTHER = 1\n")
    scheduler.worker("a")
    line = bench.but(code=tmp_path / "code").refused()
    assert "code must be" in line
    assert line.endswith("Install the driver's release there")


@pytest.mark.nightly
def test_a_killed_driver_takes_its_workers_along(bench, whole):
    local = bench.but(cache=bench.cache | {"workers": 2})
    local.kill_when(lambda: len(local.units()) >= 2)
    kept = len(local.units())
    # Alone: a worker left behind would still be writing.
    assert computed(bench.make()) <= 7 - kept
    assert bench.digests() == whole.digests()


def test_no_scheduler_at_the_address_is_one_line(teacher):
    with (
        dask.config.set({"scheduler-address": "tcp://127.0.0.1:9", "distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(errors.ClusterError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9\. Start it: dask"),
        executors.open_executor(teacher, None),
    ):
        pass
