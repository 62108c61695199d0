"""The teacher in the loop: whole runs from cache and from a live teacher end alike, with the whole recipe on."""

import json
import os
from dataclasses import replace
from pathlib import Path

import feed
import pytest
import reseal
import stage_processes
import torch
from safetensors.torch import load_file

from teachonce.core import errors
from teachonce.format import schema
from teachonce.student import batch_mix, batching, student_run, student_spec, train_cached
from teachonce.teacher import predictor, teacher_network
from teachonce.tools.live import live_rows, train_live

SHORT = {"epochs": 4, "warmup_epochs": 1, "lanes": 2, "batch_size": 8}
"""27 pairs of two views a pass: 14 steps, 56 in all."""


@pytest.fixture(scope="module")
def mixing(views):
    """Views with mixup, cutmix, two repeats and erasing."""
    policy = views().policy.model_dump(mode="json")
    return {"policy": {**policy, "mix": {}, "repeats": 2}, "evaluation": {}, "aug_seeds": 4}


@pytest.fixture(scope="module")
def mixed(world, tmp_path_factory, mixing):
    made = world.copy(tmp_path_factory.mktemp("live") / "world")
    made.add_cache("mixed", "all", mixing)
    return made


@pytest.fixture
def trained(mixed, recipe, views, mixing, tmp_path):
    """Runs one student; its folder and facts."""

    def run(name: str, student, *, live: bool, world=mixed) -> tuple[Path, dict[str, object]]:
        root = tmp_path / name
        folders = student_run.RunFolders(root / "scratch", root / "model", root / "curves")
        asked, whole = views(**mixing), student_spec.Student("x", student, recipe(**SHORT))
        if live:
            return root, train_live.train_with_teacher(whole, asked, world.shards, world.teacher, folders)
        return root, train_cached.train_from_cache(whole, asked, world.shards, world.cache("mixed"), folders)

    return run


def distance(one, two, name: str = "raw/model.safetensors") -> float:
    """Largest difference of a weight, of the size of the weights."""
    left, right = (load_file(root / "model" / name) for root in (one, two))
    assert left.keys() == right.keys()
    largest = max(float(tensor.abs().max()) for tensor in left.values())
    return max(float((left[key] - right[key]).abs().max()) for key in left) / largest


@pytest.mark.parametrize(
    "knobs", [{}, {"kind": "hard"}, {"token": False, "tau": 1.0}], ids=["soft", "hard", "one head"]
)
def test_a_run_from_whole_rows_ends_as_one_with_the_teacher_in_the_loop(trained, student, knobs):
    cached, facts = trained("cached", student(**knobs), live=False)
    live, live_facts = trained("live", student(**knobs), live=True)
    assert facts == live_facts
    assert facts["steps"] == 56
    for name in ("raw/model.safetensors", "model.safetensors"):
        assert distance(cached, live, name) < 2e-5
    # A slightly other weight of the teacher's part is already another student.
    other, _ = trained("other", student(**{**knobs, "alpha": 0.61}), live=False)
    assert distance(cached, other) > 2e-4


def test_the_teacher_is_asked_the_cached_views_at_its_own_size(mixed, mixing, views, tmp_path):
    """Before any mixing the draw is one; after it, the logits are those of the cache."""
    policy = views(**mixing).policy
    values = {"lanes": 2, "passes": 2, "seed": 3}
    teacher = teacher_network.read_identity(mixed.teacher)
    device = torch.device("cpu")
    network = predictor.Predictor(teacher_network.load(mixed.teacher, device), teacher, device)
    recipe = schema.Recipe(teacher=teacher, policy=policy, k="all", tail="none")
    source = live_rows.LiveRows(mixed.shards, recipe, aug_seeds=4, teacher=network, parts=3)
    kept_plan = mixed.plan("mixed", **values)
    plans = [kept_plan, replace(kept_plan, cache=feed.Live(policy, teacher.size))]
    assert teacher.size != 16
    boxes = 0
    for kept, bare in zip(*(feed.batches(plan, workers=0) for plan in plans), strict=True):
        assert torch.equal(kept.pixels, bare.pixels)
        assert (kept.keys, kept.teacher_pixels, bare.rows) == (bare.keys, None, {})
        assert bare.teacher_pixels.shape == (8, 3, 24, 24)
        answered = source.answer(bare)
        real = kept.weight > 0
        torch.testing.assert_close(answered.rows["logits"][real], kept.rows["logits"][real], rtol=1e-4, atol=1e-4)
        boxes += int(bare.mix.is_cut_B.sum())
        assert not torch.equal(batch_mix.mix_pixels(bare.teacher_pixels, bare.mix), bare.teacher_pixels.float())
    assert boxes


def test_workers_and_ranks_are_asked_the_same(mixed, mixing, views):
    plan = replace(mixed.plan(lanes=2, passes=1), cache=feed.Live(views(**mixing).policy, 24))
    whole = list(feed.batches(plan, workers=0))
    ranks = [feed.batches(plan, workers=0, rank=rank, ranks=2) for rank in (0, 1)]
    for other in (
        list(feed.batches(plan, workers=2)),
        [batching.concatenate(list(parts)) for parts in zip(*ranks, strict=True)],
    ):
        assert len(other) == len(whole)
        for one, two in zip(whole, other, strict=True):
            assert torch.equal(one.teacher_pixels, two.teacher_pixels)


def test_a_teacher_of_the_students_size_sees_its_pixels(mixed, mixing, views):
    """They are rendered once."""
    plan = replace(mixed.plan(lanes=2), cache=feed.Live(views(**mixing).policy, 16))
    batch = next(feed.batches(plan, workers=0))
    assert batch.teacher_pixels is batch.pixels


def test_the_command_trains_and_resumes(mixed, mixing, command, tmp_path):
    settings = {**SHORT, "epochs": 2}
    arguments = command(mixed, settings=settings, views=mixing)
    place = arguments.index("--cache")
    arguments[place : place + 2] = ["--teacher", str(mixed.teacher)]
    done = [
        stage_processes.run(["-m", "teachonce", "train-live", *arguments], cwd=tmp_path, environment=dict(os.environ))
        for _ in range(2)
    ]
    assert [run.returncode for run in done] == [0, 0], done[0].stderr
    cost = json.loads((tmp_path / "out/cost.json").read_text())
    assert (cost["steps"], cost["resumed_at_step"]) == (28, 28)
    record = json.loads((tmp_path / "out/model/record.json").read_text())
    assert record["cache"]["teacher"]["weights_sha256"] == teacher_network.read_identity(mixed.teacher).weights_sha256
    assert record["cache_fingerprint"] is None


def test_a_student_that_asks_nothing_is_refused(trained, student):
    with pytest.raises(errors.ConfigError, match=r"students\.x: kind must be soft or hard\. Got none\. It asks no"):
        trained("x", student("none"), live=True)


def test_a_teacher_of_other_classes_is_refused(mixed, trained, student, tmp_path):
    other = mixed.copy(tmp_path / "world")
    reseal.change(other.teacher / "teacher.json", classes_sha256="0" * 64)
    with pytest.raises(errors.ConfigError, match="classes must be those of the shards"):
        trained("x", student(), live=True, world=other)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_wholly_on_the_device_that_was_asked_for(mixed, mixing, views, workers):
    """A device without storage stands for a GPU; what is counted is known without asking it."""
    device = torch.device("meta")
    for cache in (mixed.cache("mixed"), feed.Live(views(**mixing).policy, 24)):
        plan = replace(mixed.plan(lanes=2, passes=1), cache=cache)
        here = list(feed.batches(plan, workers=0))
        there = list(feed.batches(plan, workers=workers, device=device))
        assert [batch.count for batch in there] == [batch.count for batch in here]
        assert {batch.count.views for batch in here} > {8.0}
        for batch in there:
            tensors = [
                batch.pixels,
                batch.label,
                batch.weight,
                *batch.rows.values(),
                batch.mix.keep_B,
                batch.mix.box_B4,
            ]
            tensors += (
                [batch.mix.is_cut_B] if batch.teacher_pixels is None else [batch.mix.is_cut_B, batch.teacher_pixels]
            )
            assert {tensor.device for tensor in tensors} == {device}
