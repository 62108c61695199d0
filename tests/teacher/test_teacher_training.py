"""The teacher stage: training here, twice the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from teachonce.core import errors, hashing
from teachonce.shards import index, sample_reader
from teachonce.teacher import (
    build_teacher,
    predictor,
    teacher_accuracy,
    teacher_config,
    teacher_network,
    training_images,
)
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
    return build(settings(weights=form | changes), digits, out)


def build(settings: teacher_config.TeacherConfig, shards, out: Path) -> dict:
    """Into `out`, going on from nothing that another one left."""
    return build_teacher.create_and_measure(settings, shards, view_policy.Policy(), out, out.with_suffix(".scratch"))


def samples_of(shards, split: str) -> list[sample_reader.Sample]:
    entries = shards.index.of_split(split)
    return [sample for entry in entries for sample in sample_reader.verified_samples(entry, shards.path(entry))]


def test_two_trainings_give_one_file(settings, digits, tmp_path):
    first = fitted(settings, digits, tmp_path / "a")
    assert fitted(settings, digits, tmp_path / "b") == first
    assert fitted(settings, digits, tmp_path / "c", seed=1) != first
    digests = [teacher_network.read_identity(tmp_path / name).weights_sha256 for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert first["val_images"] == 60
    assert 0 <= first["val_top1"] <= 1


def test_images_without_a_label_are_passed_over(settings, make_shards, tmp_path):
    some = make_shards(tmp_path / "some", counts=(20, 21), val=10, labelled=lambda row: row % 2 == 0)
    whole = make_shards(tmp_path / "whole", counts=(20, 21), val=10)
    recipe = settings().weights
    batches = [labels.tolist() for _, labels in training_images.TrainingImages(some, recipe, 32, frozenset()).epoch(0)]
    truth = {split: samples_of(whole, split)[::2] for split in index.SPLITS}
    assert sorted(label for batch in batches for label in batch) == sorted(sample.label for sample in truth["train"])
    assert [len(batch) for batch in batches] == [16, 5]
    metrics = fitted(settings, some, tmp_path / "out")
    device = torch.device("cpu")
    teacher = predictor.Predictor(
        teacher_network.load(tmp_path / "out", device), teacher_network.read_identity(tmp_path / "out"), device
    )
    answers = teacher.logits(
        np.stack([training_images.render_view(sample, view_policy.Policy(), 0, 32) for sample in truth["val"]])
    ).argmax(1)
    assert metrics["val_top1"] == pytest.approx(np.mean([sample.label for sample in truth["val"]] == answers))


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
    metrics = build(settings(weights=weights), bare, tmp_path / "out")
    assert "val_top1" not in metrics
    assert metrics["val_images"] == 7


@pytest.mark.slow
def test_it_learns(settings, digits, tmp_path):
    short = fitted(settings, digits, tmp_path / "short")
    long = fitted(settings, digits, tmp_path / "long", epochs=12)
    assert long["train_loss"] < 0.6 * short["train_loss"]
    assert long["train_top1"] > 0.9
    assert long["val_top1"] > 0.7


def unbounded(plain, **changes: object):
    """A teacher's settings with values of its training that a configuration may not have."""
    return plain.model_copy(update={"weights": plain.weights.model_copy(update=changes)})


def test_a_loss_that_is_no_number_stops_it(settings, digits, tmp_path):
    with pytest.raises(errors.NumericsError, match=r"loss of epoch 0, step \d+ is not finite\. Lower weights\.lr"):
        build(unbounded(settings(), lr=1e30), digits, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_answers_that_are_no_numbers_are_no_accuracy(settings, digits, tmp_path):
    narrow = settings().model_copy(update={"std": (1e-45, 1.0, 1.0)})
    weights = teacher_network.build_network(settings(), 10)
    teacher_network.save(tmp_path, weights, narrow, digits.index.classes)
    cpu = torch.device("cpu")
    teacher = predictor.Predictor(teacher_network.load(tmp_path, cpu), teacher_network.read_identity(tmp_path), cpu)
    with pytest.raises(errors.NumericsError, match=r"^teacher: logits of images of val-000000\.tar are not finite\. "):
        teacher_accuracy.top1_accuracy(teacher, digits, "val", size=32, evaluation=view_policy.Policy(), batch_size=8)


def test_a_teacher_without_an_accuracy_replaces_none(settings, digits, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise errors.NumericsError("x", "not finite")

    monkeypatch.setattr(teacher_accuracy, "top1_accuracy", refuse)
    with pytest.raises(errors.NumericsError):
        fitted(settings, digits, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_that_would_be_left_alone_trains(settings, make_shards, tmp_path):
    shards = make_shards(tmp_path / "shards", counts=(16, 1), val=2)
    assert fitted(settings, shards, tmp_path / "out")["train_loss"] > 0


def test_a_teacher_cannot_be_trained_on_one_image(settings, make_shards, tmp_path):
    shards = make_shards(tmp_path / "shards", counts=(3,), val=1, labelled=lambda row: row == 0)
    with pytest.raises(errors.ConfigError, match=r"pretrained where one training image alone has a label\. Got fit"):
        fitted(settings, shards, tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"batch_size": 1}, "weights.batch_size is refused: input should be greater than or equal to 2. Got 1"),
        ({"lr": 1e30}, "weights.lr is refused: input should be less than or equal to 1. Got 1e+30"),
        ({"lr": 1e300}, "weights.lr is refused: input should be less than or equal to 1. Got 1e+300"),
        ({"weight_decay": 1e30}, "weights.weight_decay is refused: input should be less than or equal to 1."),
        ({"epochs": 2, "warmup_epochs": 2}, "weights is refused: warmup_epochs must be below epochs, 2."),
        ({"policy": {"mix": {}}}, "weights.policy is refused: may not mix or repeat: the teacher's own training"),
        ({"policy": {"repeats": 2}}, "weights.policy is refused: may not mix or repeat"),
    ],
)
def test_a_training_is_refused(settings, values, line):
    with pytest.raises(errors.ConfigError) as caught:
        settings(weights=settings().weights.model_dump(mode="json") | values)
    assert str(caught.value).startswith(f"configs/teacher/x.yaml: {line}")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"std": [0.0, 0.5, 0.5]}, "std.0 is refused: input should be greater than or equal to 0.001. Got 0.0"),
        ({"std": [1e-45, 1, 1]}, "std.0 is refused: input should be greater than or equal to 0.001. Got 1e-45"),
        ({"std": [0.5, -0.5, 0.5]}, "std.1 is refused: input should be greater than or equal to 0.001. Got -0.5"),
        ({"mean": [1e38, 0, 0]}, "mean.0 is refused: input should be less than or equal to 10. Got 1e+38"),
        ({"mean": [0, 0, -1e38]}, "mean.2 is refused: input should be greater than or equal to -10. Got -1e+38"),
    ],
)
def test_pixels_that_no_network_could_use_are_refused(settings, values, line):
    with pytest.raises(errors.ConfigError) as caught:
        settings(**values)
    assert str(caught.value) == f"configs/teacher/x.yaml: {line}"
