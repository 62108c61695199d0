"""A training that was cut off goes on from its last epoch, and ends with the same bytes."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import stage_processes
import yaml

from teachonce.core import errors, files, state_files
from teachonce.teacher import build_teacher, teacher_network, training_state
from teachonce.views import view_policy

ROOT = Path(__file__).parents[2]
EPOCHS = 5


@pytest.fixture(scope="module")
def digits(make_shards, tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("digits"), counts=(40, 30), val=20)


@pytest.fixture(params=["finetune", "fit"])
def recipe(request, settings, finetuned):
    if request.param == "finetune":
        return finetuned()
    return settings(weights={"kind": "fit", "policy": {}, "epochs": EPOCHS, "batch_size": 16, "lr": 0.005})


def trained(recipe, digits, folder: Path) -> tuple[dict, bytes]:
    """What one gave, and the weights."""
    facts = build_teacher.create_and_measure(
        recipe, digits, view_policy.Policy(), folder / "out", folder / "scratch", where=Path("x.yaml")
    )
    return facts, (folder / "out" / teacher_network.WEIGHTS).read_bytes()


@pytest.fixture
def epochs_saved(monkeypatch):
    """Counts of epochs done, of each state that was saved, and what to call after one."""
    counts: list[int] = []
    calls: dict[int, object] = {}
    save = training_state.save

    def save_and_note(folder: Path, state: training_state.TeacherState) -> None:
        save(folder, state)
        counts.append(len(state.points))
        calls.get(len(state.points), lambda: None)()

    monkeypatch.setattr(training_state, "save", save_and_note)
    return counts, calls


def command(recipe, digits, folder: Path) -> list[str]:
    folder.mkdir()
    (folder / "teacher.yaml").write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    (folder / "views.yaml").write_text(yaml.safe_dump({"policy": {}, "evaluation": {}, "aug_seeds": 1}))
    options = {"config": "teacher.yaml", "views": "views.yaml", "metrics": "m.json", "cost": "cost.json"}
    paths = {name: folder / file for name, file in options.items()}
    paths |= {"shards": digits.base, "scratch": folder / "scratch", "out": folder / "out"}
    words = [str(part) for name, path in paths.items() for part in (f"--{name}", path)]
    return ["-W", "error", "-m", "stages.teacher", *words]


def started(words: list[str]) -> stage_processes.Process:
    return stage_processes.Process(words, cwd=ROOT, environment=os.environ | {"OMP_NUM_THREADS": "1"})


def until(process: stage_processes.Process, folder: Path, name: str) -> None:
    limit_s = time.monotonic() + 60
    while not list(folder.glob(f"scratch/*/{name}")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit_s
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_it_ends_with_the_same_bytes(recipe, digits, tmp_path):
    facts, weights = trained(recipe, digits, tmp_path / "straight")
    words = command(recipe, digits, tmp_path / "killed")
    process = started(words)
    until(process, tmp_path / "killed", state_files.BEFORE)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/out").exists()
    process = started(words)
    assert (process.communicate(timeout=120)[0], process.returncode) == ("", 0)
    assert (tmp_path / "killed/out" / teacher_network.WEIGHTS).read_bytes() == weights
    assert json.loads((tmp_path / "killed/m.json").read_text()) == facts


def test_ctrl_c_ends_it_after_a_step_and_the_same_command_goes_on(recipe, digits, tmp_path, epochs_saved):
    counts, calls = epochs_saved
    straight = trained(recipe, digits, tmp_path / "straight")
    assert counts == [1, 2, 3, 4, 5]
    counts.clear()
    calls[3] = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(errors.StoppedError) as caught:
        trained(recipe, digits, tmp_path / "cut")
    assert str(caught.value) == ("teacher: saved after 3 of 5 epochs. Run the same command again to go on from there")
    assert not (tmp_path / "cut/out").exists()
    assert trained(recipe, digits, tmp_path / "cut") == straight
    assert counts == [1, 2, 3, 4, 5]
    # What is done is not done again, and what would give other weights begins anew.
    assert trained(recipe, digits, tmp_path / "cut") == straight
    assert counts == [1, 2, 3, 4, 5]
    calls.clear()
    other = recipe.model_copy(update={"weights": recipe.weights.model_copy(update={"seed": 1})})
    assert trained(other, digits, tmp_path / "cut")[1] != straight[1]
    assert counts == [1, 2, 3, 4, 5] * 2


def test_what_is_damaged_is_named_and_the_one_before_is_taken(finetuned, digits, tmp_path, caplog):
    straight = trained(finetuned(), digits, tmp_path)
    (folder,) = (tmp_path / "scratch").iterdir()
    newest = folder / state_files.NEWEST
    for damage in ([newest], [newest, folder / state_files.BEFORE]):
        for path in damage:
            data = bytearray(path.read_bytes())
            data[-100] ^= 1
            files.write_bytes(path, bytes(data))
        caplog.clear()
        assert trained(finetuned(), digits, tmp_path) == straight
        lines = [record.getMessage() for record in caplog.records]
        assert [line.partition(": ")[0] for line in lines] == [str(path) for path in damage]
        after = "begins anew" if len(damage) > 1 else "goes on after 4 of 5 epochs"
        assert all(line.endswith(f"It is removed. The training {after}") for line in lines)


def test_a_state_of_another_network_is_not_taken(digits, finetuned, tmp_path, caplog):
    network = build_teacher.build_network(finetuned(), 10, where=Path("x"))
    state = training_state.TeacherState({}, {}, [{"loss": 1.0}], {})
    training_state.save(tmp_path, state)
    assert training_state.read(tmp_path, network, EPOCHS) is None
    assert "model and best must have the teacher's tensors. Got others. It is removed" in caplog.text
    weights = training_state.copy_weights(network)
    training_state.save(tmp_path, training_state.TeacherState(weights, {}, [{"loss": 1.0}] * 6, {}))
    assert training_state.read(tmp_path, network, EPOCHS) is None
    assert "points must be of 1 to 5 epochs. Got 6. It is removed. The training begins anew" in caplog.text
    weights["fc.bias"][0] = float("nan")
    with pytest.raises(errors.NumericsError, match=r"teacher: not all weights are finite after 1 epochs\. Lower"):
        training_state.save(tmp_path, training_state.TeacherState(weights, {}, [{"loss": 1.0}], {}))
