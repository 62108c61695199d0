"""Students on images of which some, or all, have no label.

Shapes: B views, C classes.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import feed
import numpy as np
import pytest
import torch

from teachonce.core import errors
from teachonce.shards import index
from teachonce.store import store_reader
from teachonce.student import batch_mix, schedule, student_model, student_run, student_spec, train_cached

SHORT = {"epochs": 2, "warmup_epochs": 0, "drop_path": 0.0}


def is_labelled(row: int) -> bool:
    """Every third image of the first tar, none of the second, all of the last."""
    return row % 3 == 0 if row < 20 else row > 39


def world_of(world, samples_of, root: Path, labelled):
    """The digits and the teacher of `world`; only the rows that `labelled` names keep their label."""
    made = replace(world, root=root)
    samples = samples_of(53)
    made.add_shards([one if labelled(row) else replace(one, label=-1) for row, one in enumerate(samples)])
    made.teacher.symlink_to(world.teacher)
    made.add_cache("whole", "all")
    return made


@pytest.fixture(scope="module")
def bare(world, samples_of, tmp_path_factory):
    """No image has a label."""
    return world_of(world, samples_of, tmp_path_factory.mktemp("bare") / "world", lambda _: False)


@pytest.fixture(scope="module")
def some(world, samples_of, tmp_path_factory):
    """Images with and without labels."""
    return world_of(world, samples_of, tmp_path_factory.mktemp("some") / "world", is_labelled)


def trained(world, out: Path, recipe, student, views) -> Path:
    whole = student_spec.Student("x", student, recipe)
    train_cached.train_from_cache(whole, views, world.shards, world.cache(), folders(out))
    return out


def folders(out: Path) -> student_run.RunFolders:
    return student_run.RunFolders(out / "scratch", out / "model", out / "curves")


def metrics(out: Path) -> set[str]:
    return {path.stem for path in (out / "curves/plots/metrics").iterdir()}


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("token", [True, False])
def test_at_alpha_1_labels_change_no_bit(world, bare, recipe, student, views, *, tmp_path, kind, token):
    settings = {"recipe": recipe(**SHORT), "student": student(kind, alpha=1.0, token=token), "views": views()}
    labelled = trained(world, tmp_path / "labelled", **settings)
    without = trained(bare, tmp_path / "bare", **settings)
    for name in (student_model.EMA, student_model.RAW):
        assert (labelled / "model" / name).read_bytes() == (without / "model" / name).read_bytes()
    # What is known of no image is not drawn.
    assert metrics(labelled) - metrics(without) == {"label_loss", "top1"}
    curves = [(out / "curves/plots/metrics/teacher_loss.tsv").read_text().splitlines() for out in (labelled, without)]
    assert len(curves[0]) == 15
    assert [line.split("\t")[1:] for line in curves[0]] == [line.split("\t")[1:] for line in curves[1]]


def test_an_index_that_denies_labels_is_compared_before_it_is_believed(bare, some, recipe, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(some.shards, folder)
    data = json.loads((folder / "index.json").read_text())
    for shard in data["shardlist"]:
        shard["unlabelled"] = shard["nsamples"]
    (folder / "index.json").write_text(json.dumps(data))
    spec = student_spec.SoftSpec(model="tiny", kind="soft", alpha=0.5, tau=2.0)
    student = student_spec.Student("x", spec, recipe())
    with pytest.raises(
        errors.DataError, match=r"train-000000\.tar: samples without a label must be as indexed, 20\. Got 13"
    ):
        student_run.require_labels(student, index.read(folder))
    with pytest.raises(errors.ConfigError, match="alpha must be 1 where no training image has a label"):
        student_run.require_labels(student, index.read(bare.shards))


@pytest.mark.parametrize(
    ("kind", "alpha", "message"),
    [
        ("soft", 0.5, "params.yaml: students.x: alpha must be 1 where no training image has a label. Got 0.5. Let"),
        ("hard", 0.0, "params.yaml: students.x: alpha must be 1 where no training image has a label. Got 0.0. Let"),
        ("none", None, "students.x: kind must be soft or hard, with alpha 1, where no training image has a label. Got"),
    ],
)
def test_a_student_that_would_learn_from_labels_is_refused(
    bare, recipe, student, views, *, tmp_path, kind, alpha, message
):
    knobs = {} if alpha is None else {"alpha": alpha}
    with pytest.raises(errors.ConfigError) as caught:
        trained(bare, tmp_path, recipe(**SHORT), student(kind, **knobs), views())
    assert message in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_units_count_the_views_with_a_label(world, bare, some):
    totals = {}
    for name, each in (("world", world), ("bare", bare), ("some", some)):
        units = list(store_reader.open(each.cache()).units())
        totals[name] = (sum(unit.correct for unit in units), sum(unit.unlabelled for unit in units))
        assert index.read(each.shards).index.labelled("train") == 53 - totals[name][1] // 4
        written = json.loads((each.cache() / "units.json").read_text())
        assert [unit.get("unlabelled", 0) for unit in written] == [unit.unlabelled for unit in units]
    assert totals["world"][1] == 0
    assert totals["bare"] == (0, 53 * 4)
    assert totals["some"][1] == 33 * 4
    assert 0 < totals["some"][0] < totals["world"][0]


def test_mixed_views_without_a_label(bare, some, recipe, student, views, *, trainer_of, tmp_path):
    """The teacher answers a mixed view as any other; labels count where both images have one."""
    policy = {**views().policy.model_dump(mode="json"), "mix": {}}
    mixed = views(policy=policy)
    for each in (bare, some):
        each.add_cache("mixed", "all", {"policy": policy, "evaluation": {}, "aug_seeds": 4})
    whole = student_spec.Student("x", student("soft", alpha=1.0), recipe(**SHORT))
    train_cached.train_from_cache(whole, mixed, bare.shards, bare.cache("mixed"), folders(tmp_path))
    assert metrics(tmp_path) & {"label_loss", "top1", "teacher_loss"} == {"teacher_loss"}
    assert sum(unit.unlabelled for unit in store_reader.open(bare.cache("mixed")).units()) == 53 * 4
    assert 0 < sum(unit.unlabelled for unit in store_reader.open(some.cache("mixed")).units()) < 53 * 4
    settings, knobs = recipe(**SHORT), student("soft", alpha=0.5)
    student_trainer = trainer_of(settings, knobs, length=schedule.Schedule(7, 14, 0))
    known = 0
    for number, batch in enumerate(feed.batches(some.plan("mixed"), workers=0)):
        means = student_trainer.train_step(batch, number)
        has_label = [bool(key) and is_labelled(int(key[-4:])) for key in batch.keys]
        alone = [own == 1 or not batch.keys[place ^ 1] for place, own in enumerate(batch.mix.keep_B.tolist())]
        both = [has and (has_label[place ^ 1] or alone[place]) for place, has in enumerate(has_label)]
        assert ("label_loss" in means) == any(both)
        assert (batch.weight * batch_mix.has_label(batch.label, batch.mix)).tolist() == [float(each) for each in both]
        known += sum(both)
    assert 0 < known < 2 * 20


def log_softmax(x_BC: torch.Tensor) -> np.ndarray:
    x_BC = x_BC.double().numpy()
    x_BC = x_BC - x_BC.max(axis=1, keepdims=True)
    return x_BC - np.log(np.exp(x_BC).sum(axis=1, keepdims=True))


def test_the_label_loss_is_the_mean_over_the_labelled(some, samples_of, recipe, student, trainer_of):
    """By hand, from the labels of the digits themselves and the network before each step."""
    settings, knobs = recipe(**SHORT), student("soft", alpha=0.25)
    student_trainer = trainer_of(settings, knobs, length=schedule.Schedule(7, 14, 0))
    truth = {sample.key: sample.label for row, sample in enumerate(samples_of(53)) if is_labelled(row)}
    mean, std = (torch.tensor(value).view(3, 1, 1) * 255 for value in (settings.mean, settings.std))
    counts = []
    for number, batch in enumerate(feed.batches(some.plan(passes=2), workers=0)):
        with torch.no_grad():
            class_BC, dist_BC = student_model.head_logits(
                student_trainer.network.train(), (batch.pixels.float() - mean) / std
            )
        means = student_trainer.train_step(batch, number)
        logp_BC = log_softmax(class_BC)
        labels = {place: truth[key] for place, key in enumerate(batch.keys) if key in truth}
        # A label smoothed by 0.1 over ten classes.
        ce = [-(0.9 * logp_BC[place, label] + 0.01 * logp_BC[place].sum()) for place, label in labels.items()]
        p_BC, q_BC = log_softmax(batch.rows["logits"] / 3), log_softmax(dist_BC / 3)
        kl_B = (np.exp(p_BC) * (p_BC - q_BC)).sum(axis=1)[[bool(key) for key in batch.keys]]
        top1 = [logp_BC[place].argmax() == label for place, label in labels.items()]
        if labels:
            assert float(means["label_loss"]) == pytest.approx(np.mean(ce), rel=1e-5)
            assert float(means["top1"]) == pytest.approx(np.mean(top1))
        total = 0.75 * (np.mean(ce) if labels else 0.0) + 0.25 * 9 * kl_B.mean()
        assert float(means["loss"]) == pytest.approx(total, rel=1e-5)
        counts.append(len(labels))
    assert sum(counts) == 2 * 20
    assert len(set(counts)) > 2


def test_a_batch_without_a_label_moves_only_the_teachers_head(some, recipe, student, trainer_of):
    settings, knobs = recipe(**SHORT, weight_decay=0.0), student("soft", alpha=0.5)
    student_trainer = trainer_of(settings, knobs, length=schedule.Schedule(7, 14, 0))
    batch = next(feed.batches(some.plan(), workers=0))
    blind = replace(batch, label=torch.full_like(batch.label, -1), count=replace(batch.count, labelled=0.0))
    before = {name: tensor.clone() for name, tensor in student_trainer.network.state_dict().items()}
    means = student_trainer.train_step(blind, 0)
    after = student_trainer.network.state_dict()
    assert set(means) == {"loss", "teacher_loss"}
    assert float(means["loss"]) == pytest.approx(0.5 * float(means["teacher_loss"]))
    assert torch.equal(after["head.weight"], before["head.weight"])
    assert not torch.equal(after["head_dist.weight"], before["head_dist.weight"])
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_a_mixed_view_is_labelled_where_both_its_images_are():
    """Four pairs of two views each: both, the first, the second, neither; then those that keep all of themselves."""
    label_B = torch.tensor([3, 3, 5, 5, 3, 3, -1, -1, -1, -1, 5, 5, -1, -1, -1, -1])
    own_B = torch.tensor([0.5, 1.0] * 8)
    found = batch_mix.MixTensors(
        own_B, torch.zeros(16, 4, dtype=torch.int64), torch.zeros(16, dtype=torch.bool), repeats=2
    )
    assert batch_mix.has_label(label_B, found).tolist() == [
        *(True, True, True, True),
        *(False, True, False, False),
        *(False, False, False, True),
        *(False,) * 4,
    ]
    label_BC = batch_mix.mix_labels(label_B, 10, 0.1, found)
    assert label_BC.isfinite().all()
    assert label_BC[0, [3, 5]].tolist() == pytest.approx([0.46, 0.46])
