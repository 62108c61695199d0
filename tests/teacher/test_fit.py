"""The teacher stage: training here, twice the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from teachonce.core import errors, hashing
from teachonce.shards import index, sample_reader
from teachonce.teacher import build_teacher, predictor, teacher_network, teacher_training
from teachonce.views import view_policy


@pytest.fixture(scope="module")
def digits(make_shards, tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("digits"), counts=(60, 60, 40), val=60)


def fitted(settings, digits, out: Path, **changes: object) -> dict:
    form = {
        "kind": "fit",
        "policy": {"affine": {"degrees": 10.0}},
        "epochs": 1,
        "batch_size": 16,
        "lr": 0.005,
        "warmup_epochs": 0,
    }
    return build_teacher.obtain(settings(weights=form | changes), digits, view_policy.Policy(), out)


def samples_of(shards, split: str) -> list[sample_reader.Sample]:
    entries = shards.index.of_split(split)
    return [sample for entry in entries for sample in sample_reader.verified(entry, shards.path(entry))]


def test_two_trainings_give_one_file(settings, digits, tmp_path):
    first = fitted(settings, digits, tmp_path / "a")
    assert fitted(settings, digits, tmp_path / "b") == first
    assert fitted(settings, digits, tmp_path / "c", seed=1) != first
    digests = [teacher_network.identity(tmp_path / name).weights_sha256 for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert first["val_images"] == 60
    assert 0 <= first["val_top1"] <= 1


def test_images_without_a_label_are_passed_over(settings, make_shards, tmp_path):
    some = make_shards(tmp_path / "some", counts=(20, 21), val=10, labelled=lambda row: row % 2 == 0)
    whole = make_shards(tmp_path / "whole", counts=(20, 21), val=10)
    recipe = settings().weights
    batches = [labels.tolist() for _, labels in teacher_training._batches(some, 32, recipe, 0)]
    truth = {split: samples_of(whole, split)[::2] for split in index.SPLITS}
    assert sorted(label for batch in batches for label in batch) == sorted(sample.label for sample in truth["train"])
    assert [len(batch) for batch in batches] == [16, 5]
    found = fitted(settings, some, tmp_path / "out")
    device = torch.device("cpu")
    teacher = predictor.Predictor(
        teacher_network.load(tmp_path / "out", device), teacher_network.identity(tmp_path / "out"), device
    )
    answers = teacher.logits(
        np.stack([teacher_training._view(sample, view_policy.Policy(), 0, 32) for sample in truth["val"]])
    ).argmax(1)
    assert found["val_top1"] == pytest.approx(np.mean([sample.label for sample in truth["val"]] == answers))


def test_a_teacher_cannot_be_trained_without_labels(settings, make_shards, teacher, tmp_path):
    bare = make_shards(tmp_path / "bare", labelled=lambda _: False)
    with pytest.raises(errors.ConfigError) as caught:
        fitted(settings, bare, tmp_path / "out")
    assert str(caught.value) == (
        "configs/teacher: weights.kind must be checkpoint or pretrained where no training image has a label. Got fit. "
        "Take weights that were trained elsewhere"
    )
    assert not (tmp_path / "out").exists()
    weights = {
        "kind": "checkpoint",
        "path": str(teacher / "model.safetensors"),
        "sha256": hashing.sha256_file(teacher / "model.safetensors"),
    }
    found = build_teacher.obtain(settings(weights=weights), bare, view_policy.Policy(), tmp_path / "out")
    assert "val_top1" not in found
    assert found["val_images"] == 7


@pytest.mark.slow
def test_it_learns(settings, digits, tmp_path):
    short = fitted(settings, digits, tmp_path / "short")
    long = fitted(settings, digits, tmp_path / "long", epochs=12)
    assert long["train_loss"] < 0.6 * short["train_loss"]
    assert long["train_top1"] > 0.9
    assert long["val_top1"] > 0.7


def test_a_loss_that_is_no_number_stops_it(settings, digits, tmp_path):
    with pytest.raises(errors.NumericsError, match=r"loss of epoch 0, step \d+ is not finite\. Lower weights\.lr"):
        fitted(settings, digits, tmp_path / "out", lr=1e30)
    assert not (tmp_path / "out").exists()
