"""The teacher stage: training here, twice the same."""

from pathlib import Path

import pytest

from pipeline.base import errors
from pipeline.teacher import model, obtain
from pipeline.views import policy


@pytest.fixture(scope="module")
def digits(make_shards, tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("digits"), counts=(60, 60, 40), val=60)


def fitted(settings, digits, out: Path, **changes: object) -> dict:
    form = {
        "kind": "fit", "policy": {"affine": {"degrees": 10.0}}, "epochs": 1, "batch_size": 16, "lr": 0.005,
        "warmup_epochs": 0,
    }  # fmt: skip
    return obtain.obtain(settings(weights=form | changes), digits, policy.Policy(), out)


def test_two_trainings_give_one_file(settings, digits, tmp_path):
    first = fitted(settings, digits, tmp_path / "a")
    assert fitted(settings, digits, tmp_path / "b") == first
    assert fitted(settings, digits, tmp_path / "c", seed=1) != first
    digests = [model.identity(tmp_path / name).weights_sha256 for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert first["val_images"] == 60
    assert 0 <= first["val_top1"] <= 1


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
