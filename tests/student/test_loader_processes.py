"""Loader processes that lack room, or die: one line, in the end, and nothing lost."""

import inspect
import os
import signal
import subprocess
import sys
import time
from multiprocessing import reduction
from pathlib import Path

import psutil
import pytest
import runs
import torch
from torch.utils.data import DataLoader, IterableDataset

from teachonce.core import errors, waiting
from teachonce.student import batch_mix, batch_packet, batching, loader_processes, pixel_slots

LIMIT_S = 120


@pytest.fixture(autouse=True)
def real_children(monkeypatch):
    """Processes that a stage starts are its children, by which they are found."""
    monkeypatch.setenv("TEACHONCE_TEST_REAL_CHILDREN", "1")


@pytest.fixture
def within():
    """A command in a mount namespace whose /dev/shm has so many bytes."""

    def small(size: str, command: list[str]) -> list[str]:
        mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, "sh", *command]

    try:
        permitted = subprocess.run(small("1m", ["true"]), capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        permitted = False
    if not permitted:
        pytest.skip("a small /dev/shm needs root")
    return small


def run(command: list[str]) -> tuple[int, list[str]]:
    """Exit code, and the lines on stderr that are no progress bar's."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        command, cwd=runs.ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return ended.returncode, [line for line in ended.stderr.splitlines() if "steps/s" not in line]


@pytest.mark.slow
@pytest.mark.system
def test_a_small_shared_memory_is_refused_before_the_first_step(world, command, within, tmp_path):
    arguments = command(world, settings={"workers": 2})
    code, lines = run(within("64k", [sys.executable, "-m", "stages.train", *arguments]))
    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith("error: /dev/shm: free bytes must be at least ")
    assert lines[0].endswith(
        ", for 2 loader processes. Got 65,536. Set workers: 0 in configs/student, or give it more: docker run "
        "--shm-size=2m …, or mount -o remount,size=2m /dev/shm"
    )
    assert not (tmp_path / "out/scratch").exists()
    code, lines = run(within("64k", [sys.executable, "-m", "stages.train", *command(world, settings={"epochs": 3})]))
    assert code == 0, lines


FILL = """
import sys
from pathlib import Path
from teachonce.core import command
from teachonce.student import loader, process_group, row_source, student_spec, train_config

def main():
    config = train_config.TrainConfig(
        architecture="none", distilled_architecture="none", size=160, mean=(0.0,) * 3, std=(1.0,) * 3, epochs=9,
        batch_size=8, lanes=4, buffer=6, workers=2, lr=0.1,
    )
    student = student_spec.Student("x", student_spec.PlainSpec(model="x", kind="none", seed=7), config)
    source = row_source.CachedRows(Path(sys.argv[1]), Path(sys.argv[2]), aug_seeds=4)
    for _ in loader.iter_batches(source, student, 9, world=process_group.single_process()):
        pass

if __name__ == "__main__":
    command.run_stage(main)
"""


@pytest.mark.slow
@pytest.mark.system
def test_a_shared_memory_that_fills_up_is_a_line_of_the_process_that_met_it(world, within, tmp_path):
    (tmp_path / "fill.py").write_text(FILL)
    code, lines = run(within("512k", [sys.executable, str(tmp_path / "fill.py"), world.shards, world.cache()]))
    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith("error: shared memory: has no room for a batch (unable to allocate shared memory")
    assert "Set workers: 0 in configs/student, or give it more" in lines[0]


def test_room_is_what_processes_render_into():
    loader_processes.require_shared_memory(1 << 40, 0)
    loader_processes.require_shared_memory(1 << 10, 1)
    with pytest.raises(errors.ConfigError, match=r"must be at least 4,398,046,\S+, for 4 loader processes\. Got "):
        loader_processes.require_shared_memory(1 << 40, 4)


LONG = {"workers": 2, "epochs": 12, "checkpoint_every": 1}


def family(process: subprocess.Popen[str]) -> tuple[psutil.Process, list[psutil.Process]]:
    """What loader processes are forked from, and they."""
    for server in psutil.Process(process.pid).children():
        if server.children():
            return server, server.children()
    raise AssertionError("no loader processes")


def started(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    """A run that has done some steps."""
    process = runs.start(arguments)
    limit_s = time.monotonic() + LIMIT_S
    while runs.logged(folder) < 4:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit_s
        time.sleep(0.002)
    return process


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("victim", ["one", "all", "what they are forked from"])
def test_a_killed_loader_is_one_line_and_the_same_command_goes_on(world, command, tmp_path, victim):
    arguments, folder = command(world, settings=LONG, out="killed"), tmp_path / "killed"
    process = started(arguments, folder)
    server, loaders = family(process)
    for killed in {"one": loaders[:1], "all": loaders}.get(victim, [server]):
        killed.send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == os.EX_PROTOCOL, stderr
    assert "Traceback" not in stderr, stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: student: loader process ")
    assert line.endswith("Run the same command again to go on from the last checkpoint")
    assert victim == "what they are forked from" or "is gone (SIGKILL)" in line
    done = runs.saved_steps(folder)
    assert done >= 3
    if victim == "one":
        alone = {**LONG, "workers": 0}
        assert runs.in_process(command(world, settings=alone, out="killed"))["resumed_at_step"] == done


def test_what_torch_takes_for_dead_ends_in_silence():
    """Seen where what they are forked from is killed, if the process is slow to end."""
    said = "Received final signal but neither done_event nor iteration_end is set"
    assert said in inspect.getsource(torch.utils.data._utils.worker)

    def fail(message: str) -> None:
        raise AssertionError(message)

    loader_processes.LoaderProcess(target=fail, args=(said,)).run()
    with pytest.raises(AssertionError, match="a bug"):
        loader_processes.LoaderProcess(target=fail, args=("a bug",)).run()


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.nightly
def test_a_rank_whose_loader_was_killed_starts_again(world, command, tmp_path):
    settings = {"workers": 1, "epochs": 3, "checkpoint_every": 1, "launcher": {"processes": 1, "max_restarts": 1}}
    arguments, folder = command(world, settings=settings), tmp_path / "out"
    process = started(arguments, folder)
    (rank,) = [child for child in psutil.Process(process.pid).children() if child.children(recursive=True)]
    loaders = [child for child in rank.children(recursive=True) if child.ppid() != rank.pid]
    loaders[0].send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, stderr
    assert runs.cost(folder)["resumed_at_step"] >= 3


def test_a_slot_in_use_is_not_overwritten():
    slots = pixel_slots.PixelSlots(2, [(3, 3, 5, 5), (3, 3, 7, 7)])
    parts = [slots.take(1, number) for number in range(3)]
    assert all(pixels.is_shared() for part in parts for pixels in part)
    assert len({pixels.data_ptr() for part in parts for pixels in part}) == 6
    with pytest.raises(RuntimeError, match="part 3 of loader process 1 would overwrite"):
        slots.take(1, 3)
    slots.give_back(0)
    assert [pixels.data_ptr() for pixels in slots.take(1, 3)] == [pixels.data_ptr() for pixels in parts[0]]
    with pytest.raises(RuntimeError, match="part 4 of loader process 1 would overwrite"):
        slots.take(1, 4)


def batch_of(views: int, **more: object) -> batching.Batch:
    return batching.Batch(
        keys=tuple(f"train/n01440764/n01440764_{number}.JPEG" for number in range(views)),
        pixels=torch.arange(75 * views).view(-1, 3, 5, 5).to(torch.uint8),
        label=torch.arange(views),
        weight=torch.ones(views),
        rows={
            "class_id": torch.arange(3 * views).view(-1, 3),
            "logp": torch.linspace(-9, 0, 3 * views).view(-1, 3).half(),
        },
        count=batching.ViewCount(float(views), views / 2),
        **{"mix": None, **more},
    )


@pytest.mark.parametrize("views", [1, 7, 1000])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_packet_holds_all_of_a_batch(views, mixed):
    more = {
        "mix": batch_mix.MixTensors(
            torch.linspace(0, 1, views), torch.arange(4.0 * views).view(-1, 4).double(), torch.arange(views) > 3, 3
        ),
        "teacher_pixels": torch.arange(147 * views).view(-1, 3, 7, 7).to(torch.uint8),
    }
    batch = batch_of(views, **(more if mixed else {}))
    packed = batch_packet.to_shared_memory(batch)
    assert all(tensor.is_shared() for tensor in packed)
    found = batch_packet.from_shared_memory(packed)
    assert (found.keys, found.count) == (batch.keys, batch.count)
    assert list(found.rows) == list(batch.rows)
    pairs = list(zip(found.tensors(), batch.tensors(), strict=True))
    assert len(pairs) == (9 if mixed else 5)
    assert all(one.dtype == two.dtype and torch.equal(one, two) for one, two in pairs)
    assert all(one.data_ptr() % one.element_size() == 0 for one, _ in pairs)
    assert (found.mix and found.mix.repeats) == (3 if mixed else None)
    # Whole, or not at all: what a pipe takes at once.
    assert len(reduction.ForkingPickler.dumps(packed)) < 4096 < len(reduction.ForkingPickler.dumps(batch_of(1000)))


class Faulty(IterableDataset):
    def __iter__(self):
        raise RuntimeError("a bug")
        yield


@pytest.mark.slow
@pytest.mark.system
def test_a_bug_in_a_process_keeps_its_traceback():
    """An error that is no refusal, where all processes are alive."""
    loader = DataLoader(
        Faulty(), batch_size=None, num_workers=1, multiprocessing_context=loader_processes.start_context()
    )
    with pytest.raises(RuntimeError, match="Caught RuntimeError in DataLoader worker process") as caught:
        list(loader_processes.iter_results(loader, "here"))
    assert type(caught.value) is RuntimeError


def test_a_long_wait_says_so_once(caplog):
    watch = waiting.WaitMonitor(lambda: "still waiting", after_s=0.05)
    try:
        for _ in range(2):
            with watch:
                limit_s = time.monotonic() + LIMIT_S
                before = len(caplog.records)
                while len(caplog.records) == before:
                    assert time.monotonic() < limit_s
                    time.sleep(0.01)
                time.sleep(0.2)
        time.sleep(0.2)
    finally:
        watch.close()
    assert [record.getMessage() for record in caplog.records] == ["still waiting"] * 2
