"""The network that a fine-tuning begins with: all of the published weights but the head."""

from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch

from teachonce.core import errors, hashing
from teachonce.teacher import build_teacher, finetune_start, new_head

WHERE = Path("configs/teacher/x.yaml")


def built(settings, classes: int = 10) -> dict[str, torch.Tensor]:
    return finetune_start.build_network(settings, settings.weights, classes, str(WHERE)).state_dict()


def written(path: Path, tensors) -> dict[str, str]:
    safetensors.torch.save_file(tensors, path)
    return {"kind": "checkpoint", "path": str(path), "sha256": hashing.sha256_file(path)}


def refused(settings) -> str:
    with pytest.raises(errors.ConfigError) as caught:
        build_teacher.build_network(settings, 10, where=WHERE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("classes", [1, 7, 10])
def test_the_head_is_new_and_all_else_is_as_published(finetuned, published_tensors, classes):
    state = built(finetuned(), classes)
    assert state["fc.weight"].shape == (classes, published_tensors["fc.weight"].shape[1])
    assert all(torch.equal(state[name], published_tensors[name]) for name in state if not name.startswith("fc."))
    # The same number of classes does not make them the same classes.
    assert classes != 7 or not torch.equal(state["fc.weight"], published_tensors["fc.weight"])
    again, other = built(finetuned(), classes), built(finetuned(seed=1), classes)
    assert torch.equal(state["fc.weight"], again["fc.weight"])
    assert not torch.equal(state["fc.weight"], other["fc.weight"])


def test_weights_without_a_head_will_do(finetuned, published_tensors, tmp_path):
    body = {name: tensor for name, tensor in published_tensors.items() if not name.startswith("fc.")}
    state = built(finetuned(start=written(tmp_path / "w.safetensors", body)))
    assert all(torch.equal(state[name], tensor) for name, tensor in body.items())


def test_tensors_of_another_library_pair_by_position(finetuned, published_tensors, tmp_path):
    # safetensors sorts tensors by name and size; a torch file keeps their order.
    order = list(built(finetuned()))
    torch.save({f"other.{place}": published_tensors[name] for place, name in enumerate(order)}, tmp_path / "w.pth")
    start = {"kind": "checkpoint", "path": str(tmp_path / "w.pth"), "sha256": hashing.sha256_file(tmp_path / "w.pth")}
    assert "lacks " in refused(finetuned(start=start))
    state = built(finetuned(start=start | {"match": "order"}))
    assert all(torch.equal(state[name], published_tensors[name]) for name in order if not name.startswith("fc."))


def test_weights_of_another_network_are_refused(finetuned, published, published_tensors, tmp_path):
    name = "layer1.0.conv1.weight"
    less = {key: tensor for key, tensor in published_tensors.items() if key != name}
    assert f"lacks {name} (1 such tensors)" in refused(finetuned(start=written(tmp_path / "less.safetensors", less)))
    more = published_tensors | {"more": torch.zeros(1)}
    assert "has the unknown more" in refused(finetuned(start=written(tmp_path / "more.safetensors", more)))
    other = published_tensors | {name: torch.zeros(1)}
    text = refused(finetuned(start=written(tmp_path / "other.safetensors", other)))
    assert f"shape of {name} must be " in text
    assert text.endswith("Choose the architecture it was made for, or another match")
    assert "weights.sha256 must be 0000" in refused(finetuned(start=published | {"sha256": "0" * 64}))


def test_weights_for_other_classes_name_the_cure(settings, published):
    text = refused(settings(weights=published))
    assert "shape of fc." in text
    assert text.endswith("or give it a new head for your classes, weights: {kind: finetune, start: …}")


def test_timms_own_weights_get_a_new_head_as_well(finetuned, published, monkeypatch):
    """timm reads its own file of weights here, from a place that stands for its hub."""
    import timm.models

    described = timm.get_pretrained_cfg("test_resnet.r160_in1k")
    path = published["path"]
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: path)
    settings = finetuned(start={"kind": "pretrained"}).model_copy(
        update={"arguments": {"pretrained_cfg_overlay": {"file": path, "num_classes": 7}}}
    )
    assert described.num_classes == 1000
    state = built(settings, 7)
    tensors = safetensors.torch.load_file(path)
    assert torch.equal(state["conv1.0.weight"], tensors["conv1.0.weight"])
    assert not torch.equal(state["fc.weight"], tensors["fc.weight"])


def test_a_network_whose_head_nobody_names_is_refused():
    with pytest.raises(errors.ConfigError, match="x: architecture: y is a network whose last layer timm does not name"):
        new_head.require_head(torch.nn.Linear(2, 2), "x: architecture", "y")
