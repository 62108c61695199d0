"""A checkpoint is believed where it proves itself; else the one before it, or none; the run's bytes are the same."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import feed
import pytest
import runs
import torch

from teachonce.core import errors, files, state_files
from teachonce.student import checkpoint, resume

STEPS = 7
SHORT = {"epochs": 3, "warmup_epochs": 0}


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        make(path)

    return act


def folder(path: Path) -> None:
    path.mkdir()
    (path / "deep").mkdir()


DAMAGES = {
    "a flipped bit": (flip, "sha256 must be that in its head, "),
    "a flipped bit of the head": (lambda path: flip(path, 0), "must begin with b'teachonce checkpoint 1\\n'. Got "),
    "the last byte": (cut, "sha256 must be that in its head, "),
    "all bytes": (lambda path: path.write_bytes(b""), "must begin with b'teachonce checkpoint 1\\n'. Got b''"),
    "a pipe": (replaced(os.mkfifo), "must be a file that can be read. Got: is no regular file"),
    "a folder": (replaced(folder), "must be a file that can be read. Got: is no regular file"),
    "a device": (replaced(lambda path: path.symlink_to("/dev/zero")), "Got: is no regular file"),
    "a loop": (replaced(lambda path: path.symlink_to(path.name)), "Got: Too many levels of symbolic links"),
    "a link to nothing": (replaced(lambda path: path.symlink_to("nothing")), "must be a file. Got a link to none"),
}


@pytest.fixture(scope="module")
def straight(world):
    made: dict[str, str] = {}

    def run(command, tmp_path: Path) -> dict[str, str]:
        if not made:
            runs.in_process(command(world, settings=SHORT, out="straight"))
            made.update(runs.digests(tmp_path / "straight"))
        return made

    return run


@dataclass(frozen=True)
class Interrupted:
    """A run that was ended after its second pass."""

    arguments: list[str]
    at: Path
    """Its checkpoints."""
    straight: dict[str, str]
    """What it leaves where nothing disturbs it."""

    def resume(self) -> int:
        """Run it to its end; the step at which it went on."""
        done = runs.in_process(self.arguments)
        assert runs.digests(self.at.parents[1]) == self.straight
        return done["resumed_at_step"]


@pytest.fixture
def interrupted(world, command, straight, tmp_path):
    arguments = command(world, settings=SHORT)
    save = checkpoint.save

    def save_and_end(at: Path, state: checkpoint.TrainingState) -> None:
        save(at, state)
        if state.step == 2 * STEPS:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_end)
        with pytest.raises(KeyboardInterrupt):
            runs.in_process(arguments)
    found = runs.scratch(tmp_path / "out")
    assert {path.name for path in found.glob("checkpoint*")} == set(state_files.NAMES)
    return Interrupted(arguments, found, straight(command, tmp_path))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_it_ends_with_the_same_bytes(interrupted, caplog, damage):
    act, reason = DAMAGES[damage]
    newest = interrupted.at / state_files.NEWEST
    act(newest)
    assert interrupted.resume() == STEPS
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{newest}: ")
    assert reason in line
    before = interrupted.at / state_files.BEFORE
    assert line.endswith(f". It is removed. The run goes on from {before}, after {STEPS} of {3 * STEPS} steps")
    assert "\n" not in line
    assert checkpoint.load(interrupted.at).step == 3 * STEPS


def test_with_both_damaged_the_run_begins_anew_and_ends_well(interrupted, caplog):
    flip(interrupted.at / state_files.NEWEST)
    replaced(folder)(interrupted.at / state_files.BEFORE)
    assert interrupted.resume() == 0
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(": ")[0] for line in lines] == [str(interrupted.at / name) for name in state_files.NAMES]
    assert all(line.endswith("It is removed. The run begins anew") for line in lines)


def test_a_folder_in_place_of_the_one_before_it_is_in_nobodys_way(interrupted, caplog):
    """While the newest is sound nobody looks at it."""
    replaced(folder)(interrupted.at / state_files.BEFORE)
    assert interrupted.resume() == 2 * STEPS
    assert not caplog.records
    assert (interrupted.at / state_files.BEFORE).is_file()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nothing")])
def test_a_lock_that_is_no_file_is_refused_in_a_line_and_the_run_goes_on_after(interrupted, make):
    lock = interrupted.at / "lock"
    replaced(make)(lock)
    with pytest.raises(errors.DiskError, match=r"/lock: it must be a regular file\. .* Remove it, and run the same"):
        runs.in_process(interrupted.arguments)
    files.remove(lock)
    assert interrupted.resume() == 2 * STEPS


def test_one_that_is_gone_is_as_if_killed_between_two_renames(interrupted, caplog):
    (interrupted.at / state_files.NEWEST).unlink()
    assert interrupted.resume() == STEPS
    assert not caplog.records


def test_another_runs_is_not_taken(world, command, interrupted, tmp_path, caplog):
    """Of the same network, so that nothing else would tell."""
    runs.in_process(command(world, settings={**SHORT, "lr": 0.002}, out="other"))
    other = runs.scratch(tmp_path / "other")
    for name in state_files.NAMES:
        shutil.copyfile(other / name, interrupted.at / name)
    assert interrupted.resume() == 0
    wanted = f"must be of run {interrupted.at.name}. Got another's"
    assert [wanted in record.getMessage() for record in caplog.records] == [True] * 2


@pytest.mark.slow
def test_the_command_says_so_in_one_line_and_ends_well(interrupted):
    flip(interrupted.at / state_files.NEWEST)
    stderr = runs.end(runs.start(interrupted.arguments))
    (line,) = (line for line in stderr.splitlines() if "checkpoint" in line)
    assert line.startswith(f"{interrupted.at / state_files.NEWEST}: sha256 must be that in its head, ")
    assert "Traceback" not in stderr, stderr
    assert runs.digests(interrupted.at.parents[1]) == interrupted.straight


@pytest.mark.slow
def test_two_ranks_go_on_from_the_one_before_and_one_of_them_says_so(world, command, interrupted, tmp_path):
    flip(interrupted.at / state_files.NEWEST)
    arguments = command(world, settings={**SHORT, "launcher": {"processes": 2}})
    stderr = runs.end(runs.start(arguments))
    assert stderr.count("sha256 must be that in its head") == 1, stderr
    assert runs.cost(tmp_path / "out")["resumed_at_step"] == STEPS
    assert runs.cost(tmp_path / "out")["ranks"] == 2


@pytest.fixture
def student_trainer(recipe, student, trainer_of):
    return trainer_of(recipe(), student())


@pytest.fixture
def saved(world, student_trainer, tmp_path):
    """A trainer after one step, and its saved state."""
    student_trainer.train_step(next(feed.batches(world.plan(), workers=0)), 0)
    student_trainer.save(tmp_path, 1, [(0, {"loss": 1.5})])
    return student_trainer, checkpoint.load(tmp_path)


def _with(state: checkpoint.TrainingState, **values: object) -> checkpoint.TrainingState:
    return checkpoint.TrainingState(
        **{name: getattr(state, name) for name in checkpoint.TrainingState.__slots__} | values
    )


UNFIT: dict[str, tuple[Callable[[checkpoint.TrainingState], dict[str, object]], str]] = {
    "step": (lambda _: {"step": 71}, "step must be of the run's 70. Got 71"),
    "step of a kind": (lambda _: {"step": True}, "step must be of the run's 70. Got True"),
    "points": (lambda _: {"points": [(0, {"loss": "x"})]}, "points must be steps with numbers by name"),
    "later points": (lambda _: {"points": [(1, {"loss": 1.0})]}, "points must be of rising steps below 1"),
    "a tensor less": (
        lambda state: {"model": {name: state.model[name] for name in list(state.model)[1:]}},
        "model must have the student's tensors. Got others",
    ),
    "another shape": (
        lambda state: {"ema": {**state.ema, "head.bias": torch.zeros(11)}},
        "ema.head.bias must be ((10,), torch.float32). Got ((11,), torch.float32)",
    ),
    "no tensor": (lambda state: {"ema": {**state.ema, "head.bias": 3}}, "ema.head.bias must be "),
    "no dictionary": (lambda _: {"model": [1]}, "model must have the student's tensors"),
    "no optimizer": (lambda _: {"optimizer": None}, "optimizer.param_groups must be the student's"),
    "a group less": (
        lambda state: {"optimizer": {**state.optimizer, "param_groups": state.optimizer["param_groups"][:1]}},
        "optimizer.param_groups must be the student's",
    ),
    "moments of another shape": (
        lambda state: {"optimizer": {**state.optimizer, "state": {0: {**state.optimizer["state"][0], "exp_avg": 1}}}},
        "optimizer.state.0.exp_avg must be ",
    ),
    "moments of nothing": (
        lambda state: {"optimizer": {**state.optimizer, "state": {999: {}}}},
        "optimizer.state must be of the student's weights",
    ),
    "a tensor without memory": (
        lambda state: {"ema": {**state.ema, "head.bias": torch.zeros(10, device="meta")}},
        "ema.head.bias must be ((10,), torch.float32). Got None",
    ),
    "a number that is not finite": (
        lambda state: {"model": {**state.model, "head.bias": torch.full((10,), float("nan"))}},
        "all numbers must be finite",
    ),
}


@pytest.mark.parametrize("change", UNFIT)
def test_a_sound_file_of_a_state_that_does_not_fit_is_named(saved, tmp_path, caplog, change):
    student_trainer, state = saved
    values, reason = UNFIT[change]
    before = {name: tensor.clone() for name, tensor in student_trainer.network.state_dict().items()}
    forge(tmp_path, _with(state, **values(state)))
    (tmp_path / state_files.BEFORE).unlink()
    assert resume.from_newest(student_trainer, tmp_path) == (0, [])
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{tmp_path / state_files.NEWEST}: {reason}")
    assert line.endswith("The run begins anew")
    assert all(torch.equal(before[name], tensor) for name, tensor in student_trainer.network.state_dict().items())


@pytest.mark.parametrize("data", [[1, 2], {"step": 1}, {"step": 1, "model": Path("x")}], ids=["list", "keys", "pickle"])
def test_a_sound_file_of_something_else_is_named(student_trainer, tmp_path, caplog, data):
    forge(tmp_path, data)
    assert resume.from_newest(student_trainer, tmp_path) == (0, [])
    assert "must hold a state as it was saved. Got: " in caplog.text


def test_a_compressed_one_is_not_unpacked(student_trainer, tmp_path, caplog, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    monkeypatch.setattr(torch, "save", lambda _, stream: stream.write(packed.getvalue()))
    checkpoint.save(tmp_path, checkpoint.TrainingState(1, {}, {}, {"state": {}}, []))
    monkeypatch.setattr(torch, "load", None)
    assert resume.from_newest(student_trainer, tmp_path) == (0, [])
    assert "must hold a state as it was saved. Got: archive/data.pkl is compressed" in caplog.text


def forge(at: Path, data: object) -> None:
    """A file with a right digest of whatever."""
    names = checkpoint.TrainingState.__slots__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.TrainingState, "is_finite", lambda _: True)
        save = torch.save
        what = {name: getattr(data, name) for name in names} if isinstance(data, checkpoint.TrainingState) else data
        patch.setattr(torch, "save", lambda _, stream: save(what, stream))
        checkpoint.save(at, checkpoint.TrainingState(1, {}, {}, {"state": {}}, []))


def test_it_is_as_large_as_the_estimate_says(saved, tmp_path):
    student_trainer, _ = saved
    weights = sum(tensor.nbytes for tensor in student_trainer.network.state_dict().values())
    found = (tmp_path / state_files.NEWEST).stat().st_size
    # A head for each tensor, which counts in networks as small as this one.
    assert 0 < found - checkpoint.COPIES * weights < 500 * sum(1 for _ in checkpoint.load(tmp_path).tensors()) + 10_000


def test_a_huge_file_is_not_read(saved, tmp_path, caplog):
    student_trainer, _ = saved
    with (tmp_path / state_files.NEWEST).open("r+b") as stream:
        stream.truncate(1 << 40)
    assert resume.from_newest(student_trainer, tmp_path) == (0, [])
    assert "bytes. Got 1,099,511,627,776" in caplog.text


def test_a_full_disk_keeps_both(saved, disk):
    student_trainer, _ = saved
    at = disk.folder / "run"
    for step in (1, 2):
        student_trainer.save(at, step, [])
    before = [(at / name).read_bytes() for name in state_files.NAMES]
    for room in (0, 4096, len(before[0]) // 2):
        disk.leave(room)
        with pytest.raises(errors.DiskError, match="Make room and run the same command again"):
            student_trainer.save(at, 3, [])
        assert [(at / name).read_bytes() for name in state_files.NAMES] == before
        assert sorted(path.name for path in at.iterdir()) == sorted(state_files.NAMES)


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from teachonce.student import checkpoint
folder, draw = Path(sys.argv[1]), random.Random(5)
weights = {"w": torch.zeros(20_000)}
reached = 0
for turn in range(60):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        for step in range(reached + 1, 10**6):
            state = checkpoint.TrainingState(step, weights, weights, {"state": {}, "param_groups": []}, [])
            checkpoint.save(folder, state)
            os.write(writer, step.to_bytes(4, "little"))
    os.close(writer)
    # Now and then at the start of a save, else somewhere after the first.
    told = os.read(reader, 4) if turn % 3 else b""
    time.sleep(draw.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while part := os.read(reader, 1 << 16):
        told += part
    os.close(reader)
    said = int.from_bytes(told[-4:], "little") if told else reached
    found = checkpoint.read(folder, lambda _: None, 1 << 30)
    assert not found.damaged, found.damaged
    assert found.state is not None or not said
    # Between two renames, the one before is the last.
    reached = found.state.step if found.state else 0
    assert reached >= said - 1, (reached, said)
print(reached)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_a_sound_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path / "run")],
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
