"""A run of `stages.train`, as a process: deterministic, resumable after any kill, and refused in one line."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import feed
import psutil
import pytest
import torch
from runs import cost, digests, end, in_process, kill_when, logged, refusal, saved_steps, scratch, start

from teachonce.core import errors
from teachonce.prepare import tar_writer
from teachonce.shards import index
from teachonce.store import store_reader
from teachonce.student import checkpoint, student_model

ROOT = Path(__file__).parents[2]
STEPS = 7
EPOCHS = 10


def saved(folder: Path) -> int:
    """Passes in the checkpoint."""
    return saved_steps(folder) // STEPS


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    """Files of a run that nothing disturbed; made by the first test that asks."""
    made: dict[str, str] = {}

    def run(command, tmp_path: Path) -> dict[str, str]:
        if not made:
            assert in_process(command(world, out="straight"))["resumed_at_step"] == 0
            made.update(digests(tmp_path / "straight"))
            assert (scratch(tmp_path / "straight") / "checkpoint.pt").is_file()
        return made

    return run


@pytest.mark.slow
def test_two_runs_leave_the_same_bytes(world, command, straight, tmp_path):
    # Written by another process to another folder, which must not show.
    first = straight(command, tmp_path)
    end(start(command(world, out="again")))
    assert digests(tmp_path / "again") == first
    weights = {f"model/{name}" for name in (student_model.EMA, student_model.RAW)}
    assert {*weights, "model/record.json", "model/config.json"} <= set(first)
    assert {"curves/plots/metrics/loss.tsv", "curves/plots/metrics/teacher_loss.tsv"} <= set(first)
    told = cost(tmp_path / "again")
    assert told["steps"] == STEPS * EPOCHS
    assert told["views"] == 53 * EPOCHS
    assert told["wall_s"] > 0
    record = json.loads((tmp_path / "again/model/record.json").read_text())
    assert record["student"]["tau"] == 3.0
    assert record["accepted"] == []
    recipe = store_reader.open(world.cache()).recipe
    assert record["cache"]["teacher"]["weights_sha256"] == recipe.teacher.weights_sha256
    lines = (tmp_path / "again/curves/plots/metrics/loss.tsv").read_text().splitlines()
    assert len(lines) == 1 + STEPS * EPOCHS
    one, two = (
        student_model.safetensors.torch.load_file(tmp_path / f"again/model/{n}")
        for n in (student_model.EMA, student_model.RAW)
    )
    assert any(not torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes(world, command, straight, tmp_path):
    first = straight(command, tmp_path)
    arguments, folder = command(world, out="killed"), tmp_path / "killed"
    moments: list[Callable[[], bool]] = [
        lambda: logged(folder) >= 3,  # within the first epoch
        lambda: (run := scratch(folder)) is not None and (run / "checkpoint.pt").is_file(),  # as a checkpoint appears
        lambda: saved(folder) >= 3 and logged(folder) % STEPS > 2,  # within a later epoch
    ]
    for moment in moments:
        before = saved(folder)
        kill_when(arguments, moment)
        assert saved(folder) >= before
        # What is lost is less than an epoch.
        assert logged(folder) - saved(folder) * STEPS < STEPS + 1
    kept = saved(folder)
    assert in_process(arguments)["resumed_at_step"] == kept * STEPS
    assert digests(folder) == first
    assert (scratch(folder) / "checkpoint.pt").is_file()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(world, command, straight, disk, tmp_path):
    first = straight(command, tmp_path)
    arguments = command(world, out="disk")
    disk.leave(900_000)
    line = refusal(arguments)
    assert line.startswith(f"error: {disk.folder}/scratch/")
    assert line.endswith("Make room and run the same command again: what was finished is kept")
    kept = saved(disk.folder)
    assert 0 < kept < EPOCHS
    disk.leave(None)
    assert in_process(arguments)["resumed_at_step"] == kept * STEPS
    assert digests(disk.folder) == first


@pytest.fixture
def interrupted(world, command, tmp_path):
    """A run that left a checkpoint in tmp_path/out/scratch."""
    arguments = command(world)
    broken = world.copy(tmp_path / "broken")
    with pytest.raises(errors.DataError, match="cannot be read"):
        in_process_until_damage(arguments, broken)
    assert saved(tmp_path / "out") == 1
    return arguments


def in_process_until_damage(arguments: list[str], broken) -> None:
    """Train on a copy whose tars vanish as soon as there is a checkpoint."""
    at = [str(broken.shards) if part.endswith("/shards") else part for part in arguments]
    save = checkpoint.save

    def save_and_remove(folder: Path, state: checkpoint.TrainingState) -> None:
        save(folder, state)
        for number in range(3):
            broken.tar(number).unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_remove)
        in_process(at)


CHANGES = {
    "alpha": {"students": {"x": {"model": "x", "kind": "soft", "alpha": 0.7, "tau": 3.0, "seed": 3}}},
    "seed": {"students": {"x": {"model": "x", "kind": "soft", "alpha": 0.6, "tau": 3.0, "seed": 4}}},
    "lr": {"settings": {"lr": 0.002}},
    "cache": {"cache": "top3"},
    "aug_seeds": {"views": "fewer"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_of_another_run_is_not_taken(world, command, interrupted, tmp_path, change):
    """Nor one of fewer aug seeds, which the cache, holding more, does not tell apart."""
    values = dict(CHANGES[change])
    if "views" in values:
        known = json.loads((tmp_path / "out/views.yaml").read_text())
        values["views"] = {**known, "aug_seeds": 2}
    settings = {"epochs": 3, **values.pop("settings", {})} if change == "lr" else values.pop("settings", None)
    assert in_process(command(world, settings=settings, **values))["resumed_at_step"] == 0


def test_a_checkpoint_of_the_same_run_is_taken(command, interrupted, world):
    assert in_process(command(world, settings={"workers": 0}))["resumed_at_step"] == STEPS


def test_ended_before_the_hand_over_it_only_hands_over(world, command, tmp_path, monkeypatch):
    short = {"epochs": 2, "warmup_epochs": 0}
    in_process(command(world, settings=short, out="straight"))
    arguments = command(world, settings=short)

    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(student_model, "save", ended)
        with pytest.raises(KeyboardInterrupt):
            in_process(arguments)
    assert not (tmp_path / "out/model").exists()
    assert in_process(arguments)["resumed_at_step"] == 2 * STEPS
    assert digests(tmp_path / "out") == digests(tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.nightly
def test_a_second_run_beside_the_first_waits_and_finds_everything_done(world, command, tmp_path, ranks, monkeypatch):
    # Ranks themselves are suspended, not what stands for them.
    monkeypatch.setenv("TEACHONCE_TEST_REAL_CHILDREN", "1")
    launcher = {"launcher": {"processes": ranks}, "lanes": 4} if ranks > 1 else {}
    arguments = command(world, settings={"epochs": 12, **launcher})
    first = start(arguments)
    while logged(tmp_path / "out") < 2:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    # Held up until the second has met it, whoever of them is quicker.
    family = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
    for process in family:
        process.suspend()
    second = start(arguments)
    assert any(
        re.search(r"is in use by process \d+ on \S+\. Waiting until that ends\n", line) for line in second.stderr
    )
    for process in family:
        process.resume()
    end(second)
    end(first)
    assert cost(tmp_path / "out")["resumed_at_step"] == cost(tmp_path / "out")["steps"]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(world, command, overflowing, tmp_path):
    entry = {"model": "x", "kind": "soft", "alpha": 0.6, "tau": 3.0, "seed": 3, "start": overflowing}
    found = refusal(command(world, students={"x": entry}, settings={"epochs": 3}))
    told = re.fullmatch(
        r"error: train: the loss of step (\d+) is nan, on samples (.*)\. Lower lr, or use float32; the last "
        "checkpoint is kept",
        found,
    )
    assert told, found
    batches = list(feed.batches(world.plan(seed=3, passes=3), workers=0))
    assert told[2].split(", ") == [key for key in batches[int(told[1])].keys if key]
    assert not (tmp_path / "out/model").exists()
    assert not (tmp_path / "out/cost.json").exists()


@pytest.mark.slow
def test_a_cache_of_another_policy_is_refused_in_one_line(world, command, tmp_path):
    views = json.loads(json.dumps(train_views(world)))
    views["policy"]["flip"] = 0.5
    before = sorted(path.name for path in tmp_path.rglob("*"))
    found = refusal(command(world, views=views))
    assert "whole.zarr: policy.flip must be as asked, 0.5. Got 0.0. Make it again: dvc repro cache" in found
    made = {"out", "params.yaml", "student.yaml", "views.yaml"}
    assert {path.name for path in tmp_path.rglob("*")} - set(before) == made


def train_views(world) -> dict[str, object]:
    policy = store_reader.open(world.cache()).recipe.policy.model_dump(mode="json")
    return {"policy": policy, "evaluation": {}, "aug_seeds": 4}


def test_what_does_not_belong_together_is_refused_before_anything_is_written(broken, command, tmp_path):
    def refused(message: str, **values: object) -> None:
        with pytest.raises(errors.IdentityError, match=message):
            in_process(command(broken, **values))
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "params.yaml",
            "student.yaml",
            "views.yaml",
        ]

    soft = {"model": "x", "kind": "soft", "alpha": 0.5, "tau": 2.0}
    views = train_views(broken)
    refused("aug_seeds must be at least the 5 asked. Got 4. Grow it", views={**views, "aug_seeds": 5})
    refused("k must be at least the 4 asked. Got at most 3", cache="top3", students={"x": {**soft, "k": 4}})
    refused("k must be at least the 10 asked. Got at most 9", students={"x": {**soft, "k": 10}})
    path = broken.shards / "index.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "classes": [*data["classes"], "ten"]}))
    refused(r"teacher\.num_classes must be 11, the classes of the shards\. Got 10")
    path.write_text(json.dumps({**data, "classes": [*data["classes"][:-1], "ten"]}))
    refused(r"teacher\.classes_sha256 must be that of the shards' class names")


def forge_canary(world, tar: int) -> None:
    path = world.cache() / "units.json"
    units = json.loads(path.read_text())
    for unit in units:
        if unit["tar"] == tar:
            unit["canary"]["sha256"] = "0" * 64
    path.write_text(json.dumps(units))


@pytest.mark.parametrize("tar", [0, 2])
def test_drift_is_refused_or_recorded(broken, command, tmp_path, tar):
    """Also drift in a tar that the look before the first step does not reach."""
    forge_canary(broken, tar)
    soft = {"model": "x", "kind": "soft", "alpha": 0.5, "tau": 2.0}
    short = {"epochs": 1, "warmup_epochs": 0}
    with pytest.raises(errors.ViewDriftError, match="views no longer replay"):
        in_process(command(broken, settings=short))
    in_process(command(broken, settings=short, students={"x": {**soft, "accept": ["view_drift"]}}))
    (line,) = accepted(tmp_path / "out")
    assert "views no longer replay" in line


def accepted(folder: Path) -> list[str]:
    return json.loads((folder / "model/record.json").read_text())["accepted"]


SHORT = {"epochs": 1, "warmup_epochs": 0}


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory):
    """Weights of a run in which nothing had to be accepted."""
    made: list[bytes] = []

    def weights(command, tmp_path: Path) -> bytes:
        if not made:
            in_process(command(world, settings=SHORT, out="plain"))
            made.append((tmp_path / "plain/model/model.safetensors").read_bytes())
            assert accepted(tmp_path / "plain") == []
        return made[0]

    return weights


@pytest.fixture
def same_in_spite(command, tmp_path, caplog, plain):
    """Refused without the word; with it said loudly, recorded, and trained to the weights of `plain`."""

    def check(world, word: str, refusal: str, **values: object) -> None:
        with pytest.raises(errors.IdentityError, match=refusal):
            in_process(command(world, settings=SHORT, **values))
        entry = {"model": "x", "kind": "soft", "alpha": 0.6, "tau": 3.0, "seed": 3, "accept": [word]}
        in_process(command(world, settings=SHORT, students={"x": entry}, **values))
        assert any(re.search(refusal, line) for line in accepted(tmp_path / "out"))
        assert any(re.search(refusal, line) for line in caplog.messages)
        assert (tmp_path / "out/model/model.safetensors").read_bytes() == plain(command, tmp_path)

    return check


def test_another_policy_is_accepted_as_the_caches_own(world, same_in_spite):
    views = train_views(world)
    views["policy"] |= {"flip": 0.5}
    refusal = r"policy\.flip must be as asked, 0\.5\. Got 0\.0\. .*; or set accept: \[policy\]$"
    same_in_spite(world, "policy", refusal, views=views)


def test_fewer_seeds_are_accepted_and_used_in_turn(world, same_in_spite):
    refusal = r"aug_seeds must be at least the 99 asked\. Got 4"
    same_in_spite(world, "aug_seeds", refusal, views=train_views(world) | {"aug_seeds": 99})


def test_other_names_of_classes_are_accepted_by_position(broken, same_in_spite):
    path = broken.shards / "index.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "classes": [*data["classes"][:-1], "ten"]}))
    same_in_spite(broken, "classes", r"teacher\.classes_sha256 must be that of the shards' class names")


def test_tars_without_rows_are_left_out(broken, same_in_spite, tmp_path, samples_of):
    path = broken.shards / "index.json"
    data = json.loads(path.read_text())
    (more,) = tar_writer.write_samples(samples_of(9, first=100), tmp_path, split="train", rows_per_tar=20)
    (tmp_path / more.url).rename(broken.shards / "train-more.tar")
    data["shardlist"].append({**more.model_dump(mode="json"), "url": "train-more.tar"})
    path.write_text(json.dumps(data))
    same_in_spite(broken, "tars", rf"has no rows of {more.sha256}; .*; or set accept: \[tars\]$")


def test_other_keys_are_joined_by_place_and_drawn_as_the_cache_did(broken, same_in_spite, samples_of):
    """Tars that were written anew under other keys, in a cache that takes them for its own."""
    shutil.rmtree(broken.shards)
    broken.add_shards([replace(sample, key=f"renamed/{sample.key}") for sample in samples_of(53)])
    group = broken.cache() / "zarr.json"
    data = json.loads(group.read_text())
    tars = data["attributes"]["teachonce"]["extent"]["tars"]
    for entry, tar in zip(index.read(broken.shards).index.shardlist, tars, strict=True):
        tar["sha256"] = entry.sha256
    group.write_text(json.dumps(data))
    path = broken.cache() / "units.json"
    path.write_text(json.dumps([{**unit, "tar_sha256": ""} for unit in json.loads(path.read_text())]))
    same_in_spite(broken, "keys", r"keys of train-000000\.tar must be those of the shard, crc32 \d+\. Got \d+")


def test_what_cannot_be_trained_is_not_accepted(broken, command):
    path = broken.shards / "index.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "classes": [*data["classes"], "ten"]}))
    words = ["policy", "classes", "aug_seeds", "tars", "keys", "view_drift"]
    entry = {"model": "x", "kind": "none", "accept": words}
    with pytest.raises(errors.IdentityError, match=r"num_classes must be 11.* Make it again: dvc repro cache$"):
        in_process(command(broken, students={"x": entry}))


def test_a_coded_tail_trains(world, command):
    done = in_process(command(world, settings={"epochs": 1, "warmup_epochs": 0}, cache="coded"))
    assert done["steps"] == STEPS


def test_a_tau_beyond_the_cache_is_told_and_recorded(world, command, tmp_path, caplog):
    soft = {"model": "x", "kind": "soft", "alpha": 0.5, "tau": 12.0}
    short = {"epochs": 1, "warmup_epochs": 0}

    def recorded(**values: object) -> object:
        caplog.clear()
        in_process(command(world, cache="top3", settings=short, students={"x": {**soft, **values}}))
        return json.loads((tmp_path / "out/model/record.json").read_text())["tau_beyond_cache"]

    found = recorded()
    assert found.startswith(
        "tau 12 with k 3: how far rows are from the teacher's full softmax was measured at tau 1 to 10"
    )
    assert [line.getMessage() for line in caplog.records] == [f"{world.cache('top3')}: {found}"]
    assert recorded(tau=2.0, max_tv=1.0) is None
    assert not caplog.records
    assert "measured for k 1) from the full softmax, max_tv is 0.001" in recorded(tau=2.0, k=1, max_tv=0.001)


@pytest.mark.parametrize("kind", ["none", "hard"])
def test_other_kinds_train_too(world, command, tmp_path, kind):
    entry = {"model": "x", "kind": kind, **({"alpha": 0.5} if kind == "hard" else {})}
    in_process(command(world, settings={"epochs": 1, "warmup_epochs": 0}, students={"x": entry}, cache="top3"))
    names = {path.name for path in (tmp_path / "out/curves/plots/metrics").iterdir()}
    assert ("teacher_loss.tsv" in names) == (kind == "hard")


def test_the_teacher_is_not_needed(broken, command):
    shutil.rmtree(broken.teacher)
    assert in_process(command(broken, settings={"epochs": 1, "warmup_epochs": 0}))["steps"] == STEPS


@pytest.mark.slow
def test_no_module_of_the_teacher_is_imported():
    code = (
        "import sys, stages.train, teachonce.student.train_cached\n"
        "print([name for name in sys.modules if name.startswith(('teachonce.teacher', 'distributed', 'dask'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
