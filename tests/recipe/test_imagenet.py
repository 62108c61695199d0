"""DeiT's recipe end to end on photographs: the shipped configurations, in real shapes, for two steps on a CPU.

What shrinks is the count of images, aug seeds and views of a step. Weights are random, the teacher's too.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_sample_images

from pipeline.base import hashing
from pipeline.cache import read
from stages import evaluate, train

ROOT = Path(__file__).parents[2]
FOLDERS = ("n03877845", "n11939491")
"""WordNet ids of palace and daisy, for scikit-learn's photographs of a Chinese palace and of a dahlia."""
TRAIN, VAL = 2, 1
"""Photographs of each."""
MODELS = {"deit_tiny": "ti-token", "deit_small": "s-token", "deit_base": "b-token", "deit_base_384": "b-token"}
"""Configurations of a student, and which entry of configs/params/imagenet.yaml learns by them here."""

pytestmark = pytest.mark.slow


def photographs(folder: Path) -> None:
    """Crops of 500 × 375 pixels, a folder a class."""
    for name, photo in zip(FOLDERS, load_sample_images().images, strict=True):
        for number in range(TRAIN + VAL):
            place = folder / ("train" if number < TRAIN else "val") / name
            place.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(photo).crop((31 * number, 13 * number, 31 * number + 500, 13 * number + 375))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=85)
            (place / f"{number}.jpg").write_bytes(buffer.getvalue())


def derived(folder: Path, path: str, **values: object) -> Path:
    """A shipped configuration with some values replaced; a dict's are replaced one by one."""
    data = yaml.safe_load((ROOT / "configs" / path).read_text())
    for name, value in values.items():
        data[name] = data[name] | value if isinstance(value, dict) else value
    found = folder / path.replace("/", "-")
    found.write_text(yaml.safe_dump(data))
    return found


def arguments(options: dict[str, object]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def stage(folder: Path, name: str, **options: object) -> None:
    files = {"metrics": f"{name}.json", "cost": f"{name}-cost.json"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"stages.{name}", *arguments(options | files)],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Photographs, DeiT's teacher of random weights from a file as facebookresearch/deit has it, its answers."""
    folder = tmp_path_factory.mktemp("deit")
    photographs(folder / "photos")
    torch.save({"model": timm.create_model("regnety_160").state_dict()}, folder / "regnety_160.pth")
    teacher = derived(
        folder, "teacher/regnety_160.yaml", precision="float32", batch_size=12,
        weights={"path": "regnety_160.pth", "sha256": hashing.sha256_file(folder / "regnety_160.pth")},
    )  # fmt: skip
    views = derived(folder, "views/imagenet.yaml", aug_seeds=3)
    rows = derived(folder, "cache/imagenet.yaml", tail={"rank": 4, "fit_tars": 1}, seeds_per_unit=3, workers=0)
    data = derived(folder, "data/imagenet.yaml", allow_empty_classes=True)
    stage(folder, "prepare", config=data, source="photos", out="shards")
    stage(folder, "teacher", config=teacher, views=views, shards="shards", out="teacher")
    stage(
        folder, "cache", config=rows, views=views, teacher_config=teacher, shards="shards", teacher="teacher",
        scratch="units", out="cache",
    )  # fmt: skip
    (folder / "teacher/model.safetensors").unlink()
    (folder / "regnety_160.pth").unlink()
    return folder


def test_the_cache_holds_the_teachers_answers_to_mixed_views(made):
    cache = read.open(made / "cache/train.zarr")
    teacher = cache.recipe.teacher
    assert (teacher.architecture, teacher.size, teacher.num_classes) == ("regnety_160", 224, 1000)
    assert (cache.recipe.policy.repeats, cache.extent.aug_seeds) == (3, 3)
    assert cache.recipe.policy.mix is not None
    assert json.loads((made / "cache.json").read_text())["train"]["views"] == 2 * TRAIN * 3
    assert json.loads((made / "teacher.json").read_text())["parameters"] == 83_590_140


@pytest.mark.parametrize("model", MODELS)
def test_two_steps_and_an_evaluation(made, monkeypatch, model):
    folder = made / model
    folder.mkdir()
    # An atom is two images with three views each: a step of one, a pass of two.
    settings = derived(
        folder, f"student/{model}.yaml", epochs=3, warmup_epochs=1, batch_size=6, lanes=1, workers=0,
        precision="float32", log_every=1,
    )  # fmt: skip
    given = {
        "student": MODELS[model], "params": ROOT / "configs/params/imagenet.yaml", "config": settings,
        "views": made / "views-imagenet.yaml", "shards": made / "shards",
    }  # fmt: skip
    trained = {"scratch": folder / "scratch", "out": folder / "student", "curves": folder / "curves"}
    ran(monkeypatch, train, given | trained | {"cache": made / "cache/train.zarr", "cost": folder / "train.json"})
    known = {"weights": folder / "student", "out": folder / "predictions", "metrics": folder / "metrics.json"}
    ran(monkeypatch, evaluate, given | known | {"cache": made / "cache/val.zarr", "cost": folder / "evaluate.json"})
    require_learnt(folder, yaml.safe_load(settings.read_text()))


def ran(monkeypatch, module, options: dict[str, object]) -> None:
    """A stage here: eight processes more would take as long as the small models' arithmetic."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments(options)])
    module.main()


def require_learnt(folder: Path, settings: dict[str, object]) -> None:
    cost = json.loads((folder / "train.json").read_text())
    assert (cost["steps"], cost["views"]) == (2, 2 * TRAIN * 3)
    for name in ("loss", "label_loss", "teacher_loss"):
        lines = (folder / f"curves/plots/metrics/{name}.tsv").read_text().splitlines()[1:]
        losses = [float(line.split("\t")[-1]) for line in lines]
        assert len(losses) == 2
        # Near the entropy of a thousand classes: nothing has been learnt in two steps, and nothing is wrong by far.
        assert np.allclose(losses, np.log(1000), atol=1.5), losses
    found = json.loads((folder / "metrics.json").read_text())
    assert set(found["heads"]) == {"class", "dist", "both", "sum_softmax"}
    assert (found["images"], found["classes"]) == (2 * VAL, 1000)
    assert found["architecture"] == settings["distilled_architecture"]
    with safe_open(folder / "student/model.safetensors", "pt") as weights:
        tokens = weights.get_slice("pos_embed").get_shape()[1]
    assert tokens == (settings["size"] // 16) ** 2 + 2
