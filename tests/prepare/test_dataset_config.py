from pathlib import Path

import pytest

from teachonce.core import errors
from teachonce.prepare import dataset_config

FOLDER = Path(__file__).parents[2] / "configs" / "dataset"


@pytest.mark.parametrize("kind", ["digits", "fashion_mnist", "image_folder", "webdataset"])
def test_shipped_configs(kind):
    assert dataset_config.load(FOLDER / f"{kind}.yaml").kind == kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: mnist", "kind must be one of digits, fashion_mnist, image_folder, webdataset. Got 'mnist'."),
        ("- 1", "kind must be one of"),
        ("kind: digits", "val_fraction is missing. Add it"),
        ("kind: digits\nval_fraction: 1.0", "val_fraction is refused: input should be less than 1. Got 1.0"),
        ("kind: digits\nval_fraction: 0.5\nrows: 3", "rows is not a known key. Remove it"),
        ("kind: digits\nval_fraction: 0.5\nrows_per_tar: 0", "rows_per_tar is refused"),
        ("kind: fashion_mnist\ntrain_images: '5'", "train_images is refused: input should be a valid integer. Got '5'"),
        ("kind: image_folder\non_bad_image: ignore", "on_bad_image is refused"),
        ("kind: image_folder\nmax_pixels: 99999999999", "max_pixels is refused"),
        ('kind: image_folder\nclasses: ["a\\tb"]', "classes.0 must be text without control characters"),
        ("kind: image_folder\nclasses: [a, a]", "classes is refused: class names must differ"),
        ("kind: image_folder\nval: ../x", "val is refused"),
        ("kind: image_folder\nval: train", "train and val must be two folders"),
        ("kind: image_folder\nval: test\nval_fraction: 0.1", "train and val name folders where val_fraction is null"),
        ("kind: webdataset\ntrain: [a]\nval: []", "val is refused"),
        ("kind: webdataset\ntrain: [../a]\nval: [b]", "train is refused: a glob must stay below the source"),
        ("kind: image_folder\nlabels: optional", "labels is refused: with optional labels, classes must be a list or"),
        ("kind: webdataset\ntrain: [a]\nval: [b]\nlabels: optional", "labels is refused: with optional labels, cla"),
        (
            "kind: webdataset\ntrain: [a]\nval: [b]\non_bad_image: skip",
            "on_bad_image is refused: an adopted tar is not rewritten, so none of its rows can be skipped",
        ),
    ],
)
def test_refusals(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(errors.ConfigError) as caught:
        dataset_config.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
