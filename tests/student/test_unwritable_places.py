"""Where a run may not write: one line that names place and cure, before the first step where it can be known."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import stage_processes
from runs import ROOT, digests, end, start

pytestmark = [pytest.mark.slow, pytest.mark.system]

SHORT = {"epochs": 2, "warmup_epochs": 0}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


AS_A_USER = """
import ctypes
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert not ctypes.CDLL(None).capget(header, sets)
# Neither CAP_DAC_OVERRIDE nor CAP_DAC_READ_SEARCH (linux/capability.h), by which root writes everywhere: neither
# effective nor, which access(2) goes by, permitted.
sets[0] &= ~0b110
sets[1] &= ~0b110
assert not ctypes.CDLL(None).capset(header, sets)
"""


def refused(arguments: list[str], before: str = "") -> str:
    """The one line in which a run ends that begins with some statements."""
    words = ["-m", "stages.train", *arguments]
    done = stage_processes.run(words, cwd=ROOT, environment=ENVIRONMENT, before=before)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def close(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o555)


def with_other(arguments: list[str], option: str, path: Path) -> list[str]:
    at = arguments.index(f"--{option}") + 1
    return [*arguments[:at], str(path), *arguments[at + 1 :]]


@pytest.mark.parametrize(
    "option", ["scratch", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("out", "curves", "cost"))]
)
def test_a_folder_without_the_right_to_write(world, command, tmp_path, option):
    folder = tmp_path / "closed"
    arguments = with_other(command(world, settings=SHORT), option, folder / "new")
    close(folder)
    line = refused(arguments, AS_A_USER)
    assert line.startswith(f"error: {folder}")
    assert ": cannot be opened or written (Permission denied). Allow it (ls -ld tells who may)" in line
    if option != "scratch":
        assert not (tmp_path / "out/scratch").exists(), "it is said before anything is computed"
    folder.chmod(0o755)
    end(start(arguments))


@pytest.mark.parametrize("option", ["scratch", pytest.param("out", marks=pytest.mark.nightly)])
def test_a_disk_that_is_read_only(world, command, tmp_path, disk, option):
    arguments = with_other(command(world, settings=SHORT), option, disk.folder / "new")
    subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
    line = refused(arguments)
    assert line.startswith(f"error: {disk.folder}")
    assert ": cannot be opened or written (Read-only file system). Its disk is mounted to be read only" in line
    subprocess.run(["mount", "-o", "remount,rw", str(disk.folder)], check=True)
    end(start(arguments))


def test_a_limit_of_a_files_size(world, command, tmp_path):
    arguments = command(world, settings=SHORT)
    line = refused(arguments, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))")
    assert line.startswith(f"error: {tmp_path / 'out'}")
    assert ": cannot be written (File too large). Raise the limit of a file's size (ulimit -f)" in line
    end(start(arguments))


def test_names_that_are_too_long(world, command, tmp_path):
    long = tmp_path / ("x" * 250) / "new"
    for option, path in (("out", long.parent), ("scratch", long / ("y" * 256)), ("cost", long / ("y" * 256) / "z")):
        line = refused(with_other(command(world, settings=SHORT), option, path))
        assert ": cannot be opened or written (File name too long). Use shorter names" in line


def test_something_in_the_way(world, command, tmp_path):
    (tmp_path / "file").touch()
    for option, path in (("cost", tmp_path / "file/cost.json"), ("out", tmp_path / "file/deep/model")):
        line = refused(with_other(command(world), option, path))
        assert line == f"error: {path}: cannot be written, for {tmp_path / 'file'} is no folder. Name another place"
    line = refused(with_other(command(world), "scratch", tmp_path / "file/x"))
    assert line.endswith(f": cannot be written, for {tmp_path / 'file'} is no folder. Name another place")
    line = refused(with_other(command(world), "cost", tmp_path))
    assert line == f"error: {tmp_path}: --cost must be a file. Got a folder. Name another place"
    assert not (tmp_path / "out/scratch").exists()


@pytest.mark.parametrize("option", ["scratch", "out", "curves", "cost", "shards", "cache"])
@pytest.mark.parametrize("below", ["", "/x"])
def test_a_circle_of_links(world, command, tmp_path, option, below):
    (tmp_path / "loop").symlink_to("loop")
    line = refused(with_other(command(world), option, Path(f"{tmp_path}/loop{below}")))
    assert line.startswith(f"error: {tmp_path}/loop")
    assert not (tmp_path / "out/scratch").exists()


def test_a_disk_that_fills_up_under_the_curves(world, command, tmp_path, disk):
    """After training: nothing of it is lost."""
    arguments = with_other(command(world, settings=SHORT), "curves", disk.folder / "curves")
    disk.leave(8192)
    line = refused(arguments)
    assert line.startswith(f"error: {disk.folder}/curves.partial/")
    assert ": cannot be written (No space left on device). Make room and run the same command again" in line
    disk.leave(None)
    end(start(arguments))
    assert runs.cost(tmp_path / "out")["resumed_at_step"] > 0
    assert (disk.folder / "curves/metrics.json").is_file()


def test_nobody_reads_the_progress(world, command, tmp_path):
    """`train … 2>&1 | head -c 5`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "stages.train", *command(world, settings=SHORT)],
        cwd=ROOT,
        stdout=writing,
        stderr=writing,
        check=False,
        env=ENVIRONMENT,
        timeout=300,
    )
    os.close(writing)
    assert done.returncode == 0
    assert (tmp_path / "out/cost.json").is_file()
    assert (tmp_path / "out/model/record.json").is_file()


@pytest.mark.nightly
def test_two_runs_of_one_output_end_well(world, command, tmp_path):
    """With scratch folders of their own, they meet at the output alone."""
    one = command(world, settings=SHORT)
    other = with_other(one, "scratch", tmp_path / "other")
    processes = [start(one), start(other)]
    for process in processes:
        end(process)
    made = digests(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.partial"))
    end(start(with_other(one, "scratch", tmp_path / "third")))
    assert digests(tmp_path / "out") == made
