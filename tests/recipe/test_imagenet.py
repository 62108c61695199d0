"""DeiT's recipe end to end on photographs: the shipped configurations, in real shapes, for two steps on a CPU.

What shrinks is the count of images, aug seeds and views of a step. Weights are random, the teacher's too. Stages run in
this process: eleven others would take as long to start as the arithmetic.
"""

import io
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

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
from stages import cache, evaluate, prepare, teacher, train

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


def derived(file: Path, path: str, **values: object) -> Path:
    """A shipped configuration with some values replaced; a dict's are replaced one by one."""
    data = yaml.safe_load((ROOT / "configs" / path).read_text())
    for name, value in values.items():
        data[name] = data[name] | value if isinstance(value, dict) else value
    file.write_text(yaml.safe_dump(data))
    return file


def arguments(options: dict[str, object]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def run(module: ModuleType, **options: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__name__, *arguments(options)])
        module.main()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Photographs, DeiT's teacher with random weights from a file as facebookresearch/deit has it, and its answers."""
    folder = tmp_path_factory.mktemp("deit")
    photographs(folder / "photos")
    file = folder / "regnety_160.pth"
    torch.save({"model": timm.create_model("regnety_160").state_dict()}, file)
    settings = derived(
        folder / "teacher.yaml", "teacher/regnety_160.yaml", precision="float32", batch_size=12,
        weights={"path": str(file), "sha256": hashing.sha256_file(file)},
    )  # fmt: skip
    views = {"224": derived(folder / "views-224.yaml", "views/imagenet.yaml", aug_seeds=3)}
    # A step of three views of each image of a pair would take half a minute at 384 pixels.
    views["384"] = derived(folder / "views-384.yaml", "views/imagenet.yaml", aug_seeds=2, policy={"repeats": 1})
    data = derived(folder / "data.yaml", "data/imagenet.yaml", allow_empty_classes=True)
    shards = {"shards": folder / "shards"}
    run(prepare, config=data, source=folder / "photos", out=folder / "shards", **told(folder, "prepare"))
    run(teacher, config=settings, views=views["224"], **shards, out=folder / "teacher", **told(folder, "teacher"))
    for size, file in views.items():
        seeds = yaml.safe_load(file.read_text())["aug_seeds"]
        rows = {"tail": {"rank": 4, "fit_tars": 1}, "seeds_per_unit": seeds, "workers": 0}
        run(
            cache, config=derived(folder / "rows.yaml", "cache/imagenet.yaml", **rows), views=file,
            teacher_config=settings, **shards, teacher=folder / "teacher", scratch=folder / "units",
            out=folder / f"cache-{size}", **told(folder, f"cache-{size}"),
        )  # fmt: skip
    shutil.rmtree(folder / "teacher")
    return folder


def told(folder: Path, name: str) -> dict[str, Path]:
    return {"metrics": folder / f"{name}.json", "cost": folder / f"{name}-cost.json"}


def test_the_cache_holds_the_teachers_answers_to_mixed_views(made):
    store = read.open(made / "cache-224/train.zarr")
    known = store.recipe.teacher
    assert (known.architecture, known.size, known.num_classes) == ("regnety_160", 224, 1000)
    assert (store.recipe.policy.repeats, store.extent.aug_seeds) == (3, 3)
    assert store.recipe.policy.mix is not None
    assert json.loads((made / "cache-224.json").read_text())["train"]["views"] == 2 * TRAIN * 3
    assert json.loads((made / "teacher.json").read_text())["parameters"] == 83_590_140


@pytest.mark.parametrize("model", MODELS)
def test_two_steps_and_an_evaluation(made, model):
    folder, size = made / model, "384" if model.endswith("384") else "224"
    folder.mkdir()
    repeats = read.open(made / f"cache-{size}/train.zarr").recipe.policy.repeats
    # A step of one pair of images, a pass of two pairs.
    settings = derived(
        folder / "student.yaml", f"student/{model}.yaml", epochs=repeats, warmup_epochs=0, batch_size=2 * repeats,
        lanes=1, workers=0, precision="float32", log_every=1,
    )  # fmt: skip
    given = {
        "student": MODELS[model], "params": ROOT / "configs/params/imagenet.yaml", "config": settings,
        "views": made / f"views-{size}.yaml", "shards": made / "shards",
    }  # fmt: skip
    run(
        train, **given, cache=made / f"cache-{size}/train.zarr", scratch=folder / "scratch", out=folder / "student",
        curves=folder / "curves", cost=folder / "train.json",
    )  # fmt: skip
    run(
        evaluate, **given, cache=made / f"cache-{size}/val.zarr", weights=folder / "student",
        out=folder / "predictions", metrics=folder / "metrics.json", cost=folder / "evaluate.json",
    )  # fmt: skip
    require_learnt(folder, yaml.safe_load(settings.read_text()))


def require_learnt(folder: Path, settings: dict[str, object]) -> None:
    cost = json.loads((folder / "train.json").read_text())
    assert (cost["steps"], cost["views"]) == (2, 2 * settings["batch_size"])
    for name in ("loss", "label_loss", "teacher_loss"):
        lines = (folder / f"curves/plots/metrics/{name}.tsv").read_text().splitlines()[1:]
        losses = [float(line.split("\t")[-1]) for line in lines]
        assert len(losses) == 2
        # Near the entropy of a thousand classes: two steps teach nothing, and do no harm.
        assert np.allclose(losses, np.log(1000), atol=1.5), losses
    found = json.loads((folder / "metrics.json").read_text())
    assert set(found["heads"]) == {"class", "dist", "both", "sum_softmax"}
    assert (found["images"], found["classes"]) == (2 * VAL, 1000)
    assert found["architecture"] == settings["distilled_architecture"]
    with safe_open(folder / "student/model.safetensors", "pt") as weights:
        tokens = weights.get_slice("pos_embed").get_shape()[1]
    assert tokens == (settings["size"] // 16) ** 2 + 2
