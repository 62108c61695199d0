"""Several ranks: the same run as one, ended by one line, and gone on with after a death or with another count."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import feed
import psutil
import pytest
import runs
import torch

from teachonce.core import errors
from teachonce.student import batch_mix, microbatches, student_model, trainer

NIGHTLY = pytest.mark.nightly
STEPS = 7
TWO = {"launcher": {"processes": 2}}
ALIKE = {"drop_path": 0.0, "epochs": 3}
"""Twenty-one steps; stochastic depth draws differently on each rank."""


def slow(test):
    """Several processes that train, each with torch."""
    return pytest.mark.system(pytest.mark.slow(test))


def losses(folder: Path) -> list[float]:
    lines = (folder / "curves/plots/metrics/loss.tsv").read_text().splitlines()[1:]
    return [float(line.split("\t")[-1]) for line in lines]


def close(one: Path, two: Path, *, within: float = 1e-5, steps: int = STEPS * 3) -> None:
    """The same curves and weights, but for rounding."""
    first, second = losses(one), losses(two)
    assert len(first) == len(second) == steps
    assert max(abs(a - b) for a, b in zip(first, second, strict=True)) < within
    for name in (student_model.EMA, student_model.RAW):
        a, b = (student_model.safetensors.torch.load_file(folder / "model" / name) for folder in (one, two))
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=3e-4)


def lines_of(stderr: str) -> list[str]:
    """What a run says, without its bar."""
    return [
        line for line in re.split(r"[\r\n]+", stderr) if line.strip() and "step/s" not in line and "steps/s" not in line
    ]


def ended(arguments: list[str], code: int) -> str:
    """The one line of a run of several ranks that must end so."""
    process = runs.start(arguments)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert not stdout
    assert len(lines_of(stderr)) == 1, stderr
    (line,) = lines_of(stderr)
    return line


@pytest.fixture(scope="module")
def one(world):
    """The folder of one rank's run; made by the first test that asks."""
    made: list[Path] = []

    def run(command, tmp_path: Path) -> Path:
        if not made:
            runs.in_process(command(world, settings=ALIKE, out="one"))
            made.append(tmp_path / "one")
        return made[0]

    return run


@slow
def test_two_ranks_are_one_with_the_same_batch(world, command, one, tmp_path):
    first = one(command, tmp_path)
    stderr = runs.end(runs.start(command(world, settings={**ALIKE, **TWO}, out="two")))
    assert not lines_of(stderr)
    close(first, tmp_path / "two")
    assert runs.cost(tmp_path / "two")["ranks"] == 2
    curves = [json.loads((folder / "curves/metrics.json").read_text()) for folder in (first, tmp_path / "two")]
    # The last batch of a pass is padded: five places in eight have a sample, not as many on each rank.
    assert curves[0]["top1"] == pytest.approx(curves[1]["top1"], abs=1e-6)
    assert curves[0]["teacher_loss"] == pytest.approx(curves[1]["teacher_loss"], abs=1e-5)


@slow
def test_ranks_with_loaders_and_in_parts_are_one_too(world, command, one, tmp_path):
    settings = {**ALIKE, **TWO, "workers": 2, "accumulate": 2}
    runs.end(runs.start(command(world, settings=settings, out="parts")))
    close(one(command, tmp_path), tmp_path / "parts")


@slow
def test_a_token_that_nothing_teaches_holds_no_rank_up(world, command, tmp_path):
    students = {"x": {"model": "x", "kind": "none", "token": True, "seed": 3}}
    runs.in_process(command(world, settings=ALIKE, students=students, out="alone"))
    runs.end(runs.start(command(world, settings={**ALIKE, **TWO}, students=students, out="both")))
    close(tmp_path / "alone", tmp_path / "both")


@slow
@NIGHTLY
def test_torchrun_by_hand_is_the_same(world, command, one, tmp_path):
    arguments = command(world, settings=ALIKE, out="hand")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "-m",
            "stages.train",
            *arguments,
        ],
        cwd=runs.ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    close(one(command, tmp_path), tmp_path / "hand")


def ranks_of(parent: int) -> list[int]:
    """Process ids of the training processes that a launcher has started, first rank first."""
    listed = subprocess.run(["ps", "--ppid", str(parent), "-o", "pid="], capture_output=True, text=True, check=False)
    found = {}
    for pid in listed.stdout.split():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {int(entry[5:]): int(pid) for entry in environment if entry.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]


def at(arguments: list[str], reached: Callable[[], bool], act: Callable[[int], None]) -> tuple[int, str]:
    """Do something to a run once something is there; its exit code and what it wrote on stderr."""
    process = runs.start(arguments)
    limit_s = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit_s
        time.sleep(0.002)
    act(process.pid)
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


@slow
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=NIGHTLY)])
def test_a_rank_killed_starts_again_from_the_last_checkpoint(world, command, one, tmp_path, rank):
    settings = {**ALIKE, "launcher": {"processes": 2, "max_restarts": 1}, "checkpoint_every": 3}
    arguments, folder = command(world, settings=settings, out="elastic"), tmp_path / "elastic"
    code, stderr = at(
        arguments, lambda: runs.logged(folder) >= 5, lambda pid: os.kill(ranks_of(pid)[rank], signal.SIGKILL)
    )
    assert code == 0, stderr
    assert "Traceback" not in stderr, stderr
    assert runs.cost(folder)["resumed_at_step"] >= 3
    close(one(command, tmp_path), folder)


@slow
def test_a_rank_killed_too_often_is_told_in_a_line(world, command, tmp_path):
    def kill_one(launcher: int) -> None:
        """Let the launcher look only once the other rank has ended too, for want of the one killed."""
        other, one = ranks_of(launcher)
        os.kill(launcher, signal.SIGSTOP)
        os.kill(one, signal.SIGKILL)
        limit_s = time.monotonic() + 60
        while psutil.Process(other).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < limit_s
            time.sleep(0.01)
        os.kill(launcher, signal.SIGCONT)

    arguments, folder = command(world, settings={**ALIKE, **TWO, "epochs": 50}), tmp_path / "out"
    code, stderr = at(arguments, lambda: runs.logged(folder) >= 5, kill_one)
    assert code == os.EX_PROTOCOL, stderr
    assert "Traceback" not in stderr, stderr
    assert lines_of(stderr)[-1].startswith(
        "error: train: rank 1 died of SIGKILL, after 0 restarts. Run the same command"
    )


@slow
def test_asked_to_stop_two_ranks_save_and_one_goes_on(world, command, one, tmp_path):
    # A checkpoint each step slows the run, which must not have ended when it is asked to.
    folder, settings = tmp_path / "asked", {**ALIKE, **TWO, "checkpoint_every": 1}
    code, stderr = at(
        command(world, settings=settings, out="asked"),
        lambda: runs.logged(folder) >= 4,
        lambda pid: os.kill(pid, signal.SIGTERM),
    )
    assert code == os.EX_TEMPFAIL, stderr
    assert "Traceback" not in stderr, stderr
    done = runs.saved_steps(folder)
    line = f"stopped: saved after {done} of {STEPS * 3} steps. Run the same command again to go on from there"
    assert lines_of(stderr) == [line]
    facts = runs.in_process(command(world, settings=ALIKE, out="asked"))
    assert facts["resumed_at_step"] == done >= 4
    assert facts["ranks"] == 1
    close(one(command, tmp_path), folder)


@slow
def test_one_rank_is_killed_and_two_go_on(world, command, one, tmp_path):
    folder, settings = tmp_path / "more", {**ALIKE, "checkpoint_every": 1}
    runs.kill_when(command(world, settings=settings, out="more"), lambda: runs.saved_steps(folder) >= 3)
    runs.end(runs.start(command(world, settings={**settings, **TWO}, out="more")))
    assert runs.cost(folder)["resumed_at_step"] >= 3
    assert runs.cost(folder)["ranks"] == 2
    close(one(command, tmp_path), folder)


@slow
def test_two_ranks_are_one_with_mixed_and_repeated_views(broken, views, command, tmp_path):
    policy = views().policy.model_dump(mode="json")
    asked = {"policy": {**policy, "mix": {}, "repeats": 2}, "evaluation": {}, "aug_seeds": 4}
    broken.add_cache("mixed", "all", asked)
    settings = {**ALIKE, "lanes": 2, "epochs": 2, "warmup_epochs": 1}
    one = runs.in_process(command(broken, cache="mixed", settings=settings, views=asked, out="one"))
    assert one["steps"] == 28
    runs.end(runs.start(command(broken, cache="mixed", settings={**settings, **TWO}, views=asked, out="two")))
    close(tmp_path / "one", tmp_path / "two", steps=28)


@slow
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=NIGHTLY)])
def test_a_signal_to_one_rank_stops_all(world, command, tmp_path, rank):
    settings = {**ALIKE, "epochs": 50, "launcher": {"processes": 2, "max_restarts": 3}}
    folder = tmp_path / "out"
    code, stderr = at(
        command(world, settings=settings),
        lambda: runs.logged(folder) >= 4,
        lambda pid: os.kill(ranks_of(pid)[rank], signal.SIGTERM),
    )
    assert code == os.EX_TEMPFAIL, stderr
    assert len(lines_of(stderr)) == 1, stderr
    (line,) = lines_of(stderr)
    assert line.startswith("stopped: saved after ")


ENDING = """
import atexit, os
from pathlib import Path
from teachonce.core import errors
from teachonce.student import torchrun

def main():
    Path(f"started-{os.getpid()}").touch()
    raise errors.StoppedError("train", "saved", "Go on")

class Last:
    def __del__(self):
        os.abort()

CASE
torchrun.run_rank(main)
"""
LAUNCH = """
from teachonce.student import torchrun, train_config
torchrun.launch_if_configured(train_config.Launcher(processes=2, max_restarts=3), "ending", [])
"""


@slow
@pytest.mark.parametrize("case", ["atexit.register(os.abort)", pytest.param("last = Last()", marks=NIGHTLY)])
def test_a_rank_that_dies_once_the_run_has_ended_trains_no_further(tmp_path, case):
    (tmp_path / "ending.py").write_text(ENDING.replace("CASE", case))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == os.EX_TEMPFAIL, done.stderr
    assert len(list(tmp_path.glob("started-*"))) <= 2


RESTARTED = {"launcher": {"processes": 2, "max_restarts": 3}, "epochs": 3}


@slow
def test_a_refusal_before_the_first_step_is_one_line(world, command):
    views = {"policy": {}, "evaluation": {}, "aug_seeds": 4}
    line = ended(command(world, settings=RESTARTED, views=views), 1)
    assert line.startswith(f"error: {world.cache()}: policy.")


@slow
@pytest.mark.parametrize("tar", [pytest.param(0, marks=NIGHTLY), 1, pytest.param(2, marks=NIGHTLY)])
def test_damage_that_one_rank_meets_ends_all_in_one_line(broken, command, tar):
    data = bytearray(broken.tar(tar).read_bytes())
    data[-3] ^= 1
    broken.tar(tar).write_bytes(data)
    line = ended(command(broken, settings=RESTARTED), 1)
    assert line.startswith(f"error: {broken.tar(tar)}: is not a whole tar (data behind its end mark at byte ")


@slow
def test_a_loss_that_is_not_finite_ends_all_in_one_line(world, command, overflowing):
    entry = {"model": "x", "kind": "soft", "alpha": 0.6, "tau": 3.0, "seed": 3, "start": overflowing}
    line = ended(command(world, students={"x": entry}, settings=RESTARTED), 1)
    assert re.match(r"error: train: the loss of step \d+ is nan, on samples digits/\d+, ", line)


def test_ranks_that_cannot_share_the_lanes_are_refused(recipe):
    with pytest.raises(errors.ConfigError, match=r"lanes must be a multiple of launcher\.processes × workers, 6"):
        recipe(launcher={"processes": 3}, workers=2)


def test_parts_that_a_batch_cannot_be_cut_into_are_refused(world, command):
    with pytest.raises(errors.ConfigError, match=r"accumulate must be at most 8, what a rank's share .* Got 9\."):
        runs.in_process(command(world, settings={"accumulate": 9}))


@pytest.mark.parametrize("count", [2, 4])
def test_the_parts_of_all_ranks_are_the_global_batch(world, count):
    whole = list(feed.batches(world.plan(), workers=0))
    shared = [list(feed.batches(world.plan(), workers=0, rank=rank, ranks=count)) for rank in range(count)]
    for batch, *pieces in zip(whole, *shared, strict=True):
        assert batch.keys == tuple(key for piece in pieces for key in piece.keys)
        assert torch.equal(batch.pixels, torch.cat([piece.pixels for piece in pieces]))
        assert torch.equal(batch.weight, torch.cat([piece.weight for piece in pieces]))


def gradients(world, student_trainer: trainer.Trainer) -> list[torch.Tensor]:
    """Of a batch with padding."""
    batch = list(feed.batches(world.plan(passes=1), workers=0))[-1]
    assert 0 < float(batch.weight.sum()) < len(batch.keys)
    means = student_trainer.train_step(batch, 0)
    found = [weight.grad for weight in student_trainer.network.parameters() if weight.grad is not None]
    return [*found, *means.values()]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_gradient_of_parts_is_that_of_the_whole(world, recipe, student, *, trainer_of, count):
    one, many = (gradients(world, trainer_of(recipe(drop_path=0.0, accumulate=n), student())) for n in (1, count))
    for a, b in zip(one, many, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_parts_are_the_batch_in_order(world):
    batch = next(feed.batches(world.plan("top3"), workers=0))
    pieces = microbatches.split(batch, 3)
    assert [len(piece.keys) for piece in pieces] == [2, 3, 3]
    assert tuple(key for piece in pieces for key in piece.keys) == batch.keys
    for name in batch.rows:
        assert torch.equal(torch.cat([piece.rows[name] for piece in pieces]), batch.rows[name])


@pytest.mark.parametrize("repeats", [1, 2])
def test_what_is_mixed_together_stays_in_one_part(world, repeats):
    batch = next(feed.batches(world.plan("top3"), workers=0))
    weight, box = torch.arange(8) / 8, torch.arange(32).view(8, 4)
    found = batch_mix.MixTensors(keep_B=weight, box_B4=box, is_cut_B=weight > 0.5, repeats=repeats)
    batch = replace(batch, mix=found)
    pieces = microbatches.split(batch, 2)
    assert [len(piece.keys) for piece in pieces] == [4, 4]
    whole = batch_mix.mix_pixels(batch.pixels, found)
    assert torch.equal(torch.cat([batch_mix.mix_pixels(piece.pixels, piece.mix) for piece in pieces]), whole)
    assert not torch.equal(whole, batch.pixels.float())
    assert [len(piece.keys) for piece in microbatches.split(batch, 3)] == ([2, 2, 4] if repeats == 1 else [0, 4, 4])
