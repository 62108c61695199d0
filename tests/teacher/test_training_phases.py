"""A fine-tuning: first the head, then all layers; norms keep their statistics, and the best epoch is taken."""

import logging
import math
from pathlib import Path

import pytest
import torch

from teachonce.core import errors
from teachonce.teacher import build_teacher, teacher_network, teacher_training, training_state
from teachonce.views import view_policy

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def digits(make_shards, tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("digits"), counts=(60, 60, 40), val=60)


def tuned(settings, shards, folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    facts = build_teacher.create_and_measure(
        settings, shards, view_policy.Policy(), folder / "out", folder / "scratch", where=Path("x.yaml")
    )
    return facts, teacher_network.load(folder / "out", torch.device("cpu")).state_dict()


def changed(state, tensors) -> set[str]:
    """Names of the tensors that the training changed; the head is new in any case."""
    return {name for name in state if not name.startswith("fc.") and not torch.equal(state[name], tensors[name])}


def test_the_head_alone_learns_first(finetuned, digits, published_tensors, tmp_path):
    facts, state = tuned(finetuned(epochs=0), digits, tmp_path)
    assert not changed(state, published_tensors)
    initial = build_teacher.build_network(finetuned(), 10, where=Path("x")).state_dict()
    assert not torch.equal(state["fc.weight"], initial["fc.weight"])
    assert facts["epochs"] == 2


def test_then_all_layers_do_and_no_norm_forgets_its_statistics(finetuned, digits, published_tensors, tmp_path):
    _, state = tuned(finetuned(head_epochs=0), digits, tmp_path)
    kept = {name for name in state if name.endswith(STATISTICS)}
    assert kept
    assert changed(state, published_tensors) == {name for name in state if not name.startswith("fc.")} - kept


@pytest.mark.slow
def test_it_learns_and_the_epoch_with_the_lowest_loss_is_taken(finetuned, digits, tmp_path):
    settings = finetuned(head_epochs=3, epochs=12)
    facts, _ = tuned(settings, digits, tmp_path)
    assert facts["val_top1"] > 0.5
    assert facts["held_back_images"] == 16
    assert 0 <= facts["held_back_top1"] <= 1
    network = build_teacher.build_network(settings, 10, where=Path("x"))
    (folder,) = (tmp_path / "scratch").iterdir()
    points = training_state.read(folder, network, 15).points
    losses = [point["held_back_loss"] for point in points]
    assert facts["held_back_loss"] == min(losses)
    assert facts["chosen_epoch"] == losses.index(min(losses)) + 1
    assert facts["train_loss"] == points[facts["chosen_epoch"] - 1]["loss"]


def test_it_ends_early_where_the_held_back_images_get_no_better(finetuned, digits, tmp_path, monkeypatch):
    # The third epoch is the best, and the first of all layers: five, six and seven are waited for.
    losses = iter([3.0, 2.0, 1.0, 1.5, 1.5, 1.5])
    monkeypatch.setattr(
        teacher_training._Training,
        "_score_held_back",
        lambda _: {"held_back_loss": next(losses), "held_back_top1": 0.5},
    )
    facts, _ = tuned(finetuned(epochs=20, patience=3), digits, tmp_path)
    assert (facts["chosen_epoch"], facts["epochs"]) == (3, 6)
    assert next(losses, None) is None


def test_where_no_image_can_be_held_back_the_last_epoch_is_taken(finetuned, make_shards, tmp_path, caplog):
    # An image of each class.
    shards = make_shards(tmp_path / "shards", counts=(10,), val=3)
    with caplog.at_level(logging.WARNING):
        facts, _ = tuned(finetuned(patience=1), shards, tmp_path)
    assert "no class has an image to hold back, so that the last epoch's weights are taken" in caplog.text
    assert (facts["chosen_epoch"], facts["epochs"], facts["held_back_images"]) == (5, 5, 0)
    assert "held_back_top1" not in facts


def test_one_image_is_enough_and_batches_of_one(finetuned, make_shards, tmp_path):
    shards = make_shards(tmp_path / "shards", counts=(3,), val=1, labelled=lambda row: row == 0)
    facts, _ = tuned(finetuned(batch_size=1), shards, tmp_path)
    assert math.isfinite(facts["train_loss"])


def test_none_is_not(finetuned, make_shards, tmp_path):
    shards = make_shards(tmp_path / "bare", labelled=lambda _: False)
    with pytest.raises(errors.ConfigError) as caught:
        tuned(finetuned(), shards, tmp_path)
    assert str(caught.value) == (
        "x.yaml: weights.kind must be checkpoint or pretrained where no training image has a label. Got finetune. "
        "Take weights that were trained elsewhere"
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"epochs": 0, "head_epochs": 0}, "weights is refused: head_epochs and epochs must not both be 0."),
        ({"epochs": 2, "warmup_epochs": 2}, "weights is refused: warmup_epochs must be below epochs, 2."),
        ({"policy": {"mix": {}}}, "weights.policy is refused: may not mix or repeat: the teacher's own training"),
        ({"start": {"kind": "timm"}}, "weights.start.kind is refused: input should be 'checkpoint', 'pretrained' or"),
        ({"start": {"kind": "torchvision"}}, "weights.start.name is missing. Add it"),
        ({"head_lr": 0}, "weights.head_lr is refused: input should be greater than 0"),
    ],
)
def test_a_recipe_is_refused(finetuned, values, line):
    with pytest.raises(errors.ConfigError) as caught:
        finetuned(**values)
    assert str(caught.value).startswith(f"configs/teacher/x.yaml: {line}")
