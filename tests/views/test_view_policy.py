import json

import pytest

from teachonce.core import config, errors
from teachonce.views import view_policy
from teachonce.views.view_policy import RENDERER, Policy
from teachonce.views.views_config import ViewsConfig


@pytest.mark.parametrize(
    ("data", "key", "reason"),
    [
        ({"crop": {}, "center": 0.9}, "the file", "crop or center, not both"),
        ({"center": 0.0}, "center", "greater than 0"),
        ({"center": 1.5}, "center", "less than or equal to 1"),
        ({"flip": -0.1}, "flip", "greater than or equal to 0"),
        ({"flip": True}, "flip", "valid number"),
        ({"flip": float("nan")}, "flip", "refused"),
        ({"flip": "0.5"}, "flip", "valid number"),
        ({"interpolation": "lanczos"}, "interpolation", "'bicubic' or 'bilinear'"),
        ({"crop": {"scale": [0.9, 0.1]}}, "crop.scale", r"must be \[low, high\]"),
        ({"crop": {"scale": [0.1, 1.1]}}, "crop.scale.1", "less than or equal to 1"),
        ({"crop": {"ratio": [0.0, 1.0]}}, "crop.ratio.0", "greater than or equal to 0.01"),
        ({"affine": {"scale": [1e-310, 1.0]}}, "affine.scale.0", "greater than or equal to 0.01"),
        ({"crop": {"ratio": [1.0]}}, "crop.ratio.1", "missing"),
        ({"rand_augment": {"operations": 0}}, "rand_augment.operations", "greater than or equal to 1"),
        ({"rand_augment": {"magnitude": 11.0}}, "rand_augment.magnitude", "less than or equal to 10"),
        ({"rand_augment": {"std": float("inf")}}, "rand_augment.std", "finite number"),
        ({"rand_augment": {"fill": [0, 0, 256]}}, "rand_augment.fill.2", "less than or equal to 255"),
        ({"affine": {"shear": 90.0}}, "affine.shear", "less than or equal to 60"),
        ({"affine": {"scale": [1.1, 0.9]}}, "affine.scale", "low at most high"),
        ({"color_jitter": {"brightness": -1.0}}, "color_jitter.brightness", "greater than or equal to 0"),
        ({"erase": {"probability": 2}}, "erase.probability", "less than or equal to 1"),
        ({"colour_jitter": {}}, "colour_jitter", "not a known key"),
    ],
)
def test_bad_values_are_refused_by_name(data, key, reason):
    with pytest.raises(errors.ConfigError, match=f"^views.yaml: (policy )?{key} .*{reason}"):
        config.parse(data, Policy, "views.yaml")


def test_empty_means_the_whole_image_unchanged():
    empty = config.parse({}, Policy, "views.yaml")
    assert empty == Policy()
    assert set(empty.model_dump().values()) == {None, 0.0, "bicubic", 1, RENDERER}


@pytest.mark.parametrize(
    "data",
    [
        {"center": 1},
        {"crop": {"scale": [0.08, 1]}, "flip": 0.5, "rand_augment": {"fill": [1, 2, 3]}, "erase": {}},
        {"affine": {"degrees": 10, "scale": [0.9, 1.1]}, "color_jitter": {"contrast": 0.2}},
        {"mix": {"mixup_alpha": 0, "cutmix_alpha": 0.5}, "repeats": 3},
    ],
)
def test_json_round_trips_with_and_without_defaults(data):
    wanted = config.parse(data, Policy, "views.yaml")
    for text in (wanted.model_dump_json(), wanted.model_dump_json(exclude_defaults=True)):
        assert config.parse(json.loads(text), Policy, "cache") == wanted


def test_none_is_the_usual_evaluation():
    assert view_policy.center_crop() == config.parse({"center": 0.875}, Policy, "x")
    assert view_policy.center_crop(1.0).center == 1.0


@pytest.mark.parametrize("data", [{"flip": 0.5}, {"crop": {}}, {"erase": {}}, {"affine": {}}, {"rand_augment": {}}])
def test_evaluation_leaves_nothing_to_chance(data):
    fine = {"policy": data, "evaluation": {"center": 0.9, "interpolation": "bilinear"}, "aug_seeds": 2}
    assert config.parse(fine, ViewsConfig, "views.yaml").evaluation.center == 0.9
    with pytest.raises(errors.ConfigError, match=r"^views.yaml: evaluation is refused: may set center and interpol"):
        config.parse({**fine, "evaluation": data}, ViewsConfig, "views.yaml")
