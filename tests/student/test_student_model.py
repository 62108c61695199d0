"""The student's network: timm's own, initialised from its seed, saved so that timm loads it without this project."""

import json

import pytest
import safetensors.torch
import timm
import torch

from teachonce.core import errors
from teachonce.student import student_model, student_spec

KINDS = ("none", "soft")


def images(count: int = 3, size: int = 16) -> torch.Tensor:
    return torch.linspace(-1, 1, count * 3 * size * size).reshape(count, 3, size, size).sin()


def whole(settings, knobs) -> student_spec.Student:
    return student_spec.Student("x", knobs, settings)


def folder_of(path, settings, spec, network):
    path.mkdir()
    other = student_model.create_model(whole(settings, spec.model_copy(update={"seed": 99})), 10)
    student_model.save(path, {student_model.EMA: network, student_model.RAW: other}, whole(settings, spec), 10)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_timm_loads_what_is_saved(tmp_path, recipe, student, kind):
    spec, settings = student(kind, seed=5), recipe()
    network = student_model.create_model(whole(settings, spec), 10).eval()
    folder = folder_of(tmp_path / "student", settings, spec, network)
    known = json.loads((folder / "config.json").read_text())
    by_path = timm.create_model(
        known["architecture"],
        num_classes=known["num_classes"],
        checkpoint_path=str(folder / student_model.EMA),
        **known["model_args"],
    )
    by_folder = timm.create_model(f"local-dir:{folder}", pretrained=True)
    for loaded in (by_path.eval(), by_folder.eval()):
        assert type(loaded) is type(network)
        assert torch.equal(loaded(images()), network(images()))
    assert by_folder.pretrained_cfg["mean"] == [0.5, 0.5, 0.5]
    assert by_folder.pretrained_cfg["std"] == [0.25, 0.25, 0.25]
    assert tuple(by_folder.pretrained_cfg["input_size"]) == (3, 16, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_here_too(tmp_path, recipe, student, kind):
    spec, settings = student(kind, seed=5), recipe()
    network = student_model.create_model(whole(settings, spec), 10).eval()
    folder = folder_of(tmp_path / "student", settings, spec, network)
    loaded = student_model.load((folder / student_model.EMA).read_bytes(), whole(settings, spec), 10, folder=folder)
    assert not loaded.training
    assert all(torch.equal(one, two) for one, two in zip(loaded.parameters(), network.parameters(), strict=True))
    assert set(safetensors.torch.load_file(folder / student_model.RAW)) == set(network.state_dict())


def test_a_seed_is_all_that_initial_weights_depend_on(recipe, student):
    def weights(seed: int, **knobs: object) -> list[torch.Tensor]:
        return list(
            student_model.create_model(whole(recipe(**knobs), student("soft", seed=seed)), 10).state_dict().values()
        )

    one = weights(4)
    torch.manual_seed(123)  # noqa: TID251 (whatever happened before)
    assert all(torch.equal(a, b) for a, b in zip(one, weights(4, lr=0.5, epochs=77), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, weights(5), strict=True))


@pytest.mark.parametrize(("kind", "token"), [("none", None), ("soft", False), ("none", True), ("hard", None)])
def test_heads(recipe, student, kind, token):
    spec = student(kind, token=token)
    network = student_model.create_model(whole(recipe(drop_path=0.0), spec), 10)
    class_BC, dist_BC = student_model.head_logits(network.train(), images())
    assert class_BC.shape == (3, 10)
    assert (dist_BC is not None) == spec.has_token
    again, _ = student_model.head_logits(network.eval(), images())
    assert torch.equal(class_BC, again)
    # timm averages the heads outside training: the mean is its own inference.
    both = class_BC if dist_BC is None else (class_BC + dist_BC) / 2
    torch.testing.assert_close(network(images()), both)
    if dist_BC is not None:
        assert not torch.equal(class_BC, dist_BC)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"distilled_architecture": "deit_minute"},
            r"timm cannot make deit_minute \(.*\)\..* See timm\.list_models\(\)",
        ),
        (
            {"distilled_architecture": "deit_tinny_distilled_patch16_224"},
            r"Did you mean deit_tiny_distilled_patch16_224\? See",
        ),
        ({"arguments": {"img_sizee": 16}}, r"\(img_sizee is none of its arguments\)\. Did you mean img_size\?"),
        ({"arguments": {"num_heads": 0}}, r"\(ZeroDivisionError: integer modulo by zero\)\. Correct arguments"),
        ({"arguments": {"act_layer": "gelou"}}, r"\(KeyError: 'gelou'\)\. Correct arguments"),
        ({"arguments": {"img_size": 16, "patch_size": 8, "embed_dim": 33, "num_heads": 2}}, "timm cannot make deit_t"),
        ({"size": 48}, r"takes no images of 48 × 48 pixels \(AssertionError: .*\)\. Correct either"),
        ({"arguments": {"image_size": 16}}, r"timm cannot make .*image_size"),
        ({"distilled_architecture": "deit_tiny_patch16_224"}, "must be a timm model with a distillation token"),
    ],
)
def test_a_model_timm_cannot_make_is_refused(recipe, student, values, message):
    with pytest.raises(errors.ConfigError, match=message) as caught:
        student_model.create_model(whole(recipe(**values), student("soft")), 10)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_refused(tmp_path, recipe, student):
    settings = recipe()
    folder = folder_of(
        tmp_path / "student",
        settings,
        student("none"),
        student_model.create_model(whole(settings, student("none")), 10),
    )
    data = (folder / student_model.EMA).read_bytes()
    with pytest.raises(errors.DataError, match=r"model\.safetensors: lacks dist_token \(3 such .*\)\. Restore it"):
        student_model.load(data, whole(settings, student("soft")), 10, folder=folder)
    with pytest.raises(errors.DataError, match=r"model\.safetensors: is not a file of tensors \(.*\)\. Restore it"):
        student_model.load(data[:-9], whole(settings, student("none")), 10, folder=folder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
def test_a_record_that_names_a_network_without_end_is_refused(tmp_path, recipe, student, kind):
    settings, spec = recipe(), student(kind)
    folder = folder_of(tmp_path / "x", settings, spec, student_model.create_model(whole(settings, spec), 10))
    data = (folder / student_model.EMA).read_bytes()
    for argument, message in (("depth", "network .* must be of a size that [0-9]+ tensors"), ("embed_dim", "shape of")):
        forged = recipe(arguments={**settings.arguments, argument: 1 << 20})
        with pytest.raises(errors.DataError, match=rf"x/model\.safetensors: {message} .*\. Restore it") as caught:
            student_model.load(data, whole(forged, spec), 10, folder=folder)
        assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(tmp_path, recipe, student):
    settings, spec = recipe(), student("none")
    state = student_model.create_model(whole(settings, spec), 10).state_dict()
    state["head.bias"][3] = torch.nan
    with pytest.raises(errors.DataError, match=r"safetensors: head\.bias must be finite throughout\. Got .* Restore"):
        student_model.load(safetensors.torch.save(state), whole(settings, spec), 10, folder=tmp_path)


PAPER = {  # millions of parameters: Touvron et al. 2021, table 1; the second token and head make a little more
    ("tiny", 224): 5.9,
    ("small", 224): 22.4,
    ("base", 224): 87.3,
    ("base", 384): 87.6,
}


@pytest.mark.parametrize(("width", "size"), PAPER)
def test_deit_by_name(recipe, student, width, size):
    settings = recipe(
        architecture=f"deit_{width}_patch16_{size}",
        distilled_architecture=f"deit_{width}_distilled_patch16_{size}",
        arguments={},
        size=size,
    )
    # Without memory or arithmetic behind the numbers: shapes are what is asked.
    with torch.device("meta"):
        network = student_model.create_model(whole(settings, student("soft")), 1000)
        class_BC, dist_BC = student_model.head_logits(network, torch.zeros(2, 3, size, size))
    assert class_BC.shape == dist_BC.shape == (2, 1000)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(PAPER[width, size], abs=0.06)


def test_deit_tiny_runs(recipe, student):
    settings = recipe(
        architecture="deit_tiny_patch16_224",
        distilled_architecture="deit_tiny_distilled_patch16_224",
        arguments={},
        size=224,
    )
    network = student_model.create_model(whole(settings, student("soft")), 1000).eval()
    with torch.inference_mode():
        class_BC, dist_BC = student_model.head_logits(network, images(1, 224))
    assert class_BC.isfinite().all()
    assert dist_BC.isfinite().all()
