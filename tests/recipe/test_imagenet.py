"""DeiT's recipe end to end on photographs: the shipped configurations, in real shapes, for two steps on a CPU.

What shrinks is the count of images, aug seeds and views of a step. Weights are random, the teacher's too. Stages run in
this process: eleven others would take as long to start as the arithmetic.
"""

import io
import json
import shutil
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

from teachonce.cache import cache_command
from teachonce.core import hashing, seeding
from teachonce.evaluate import evaluate_command
from teachonce.prepare import prepare_command
from teachonce.store import store_reader
from teachonce.student import train_command
from teachonce.teacher import teacher_command

ROOT = Path(__file__).parents[2]
FOLDERS = ("n03877845", "n11939491")
"""WordNet ids of palace and daisy, for scikit-learn's photographs of a Chinese palace and of a dahlia."""
TRAIN, VAL = 2, 1
"""Photographs of each."""
STUDENTS = {
    "ti-token": "deit_tiny",
    "ti-plain": "deit_tiny",
    "ti-soft": "deit_tiny",
    "ti-hard": "deit_tiny",
    "s-token": "deit_small",
    "b-token": "deit_base",
    "b384-token": "deit_base_384",
}
"""Students and their configurations; all but the last are entries of configs/params/imagenet.yaml."""
AT_NIGHT = {"s-token", "b-token", "b384-token"}
"""The same as others, of other sizes."""

pytestmark = [pytest.mark.slow, pytest.mark.system]


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
    module.main(arguments(options))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """Photographs, DeiT's teacher with random weights from a file as facebookresearch/deit has it, and its answers."""
    folder = tmp_path_factory.mktemp("deit")
    photographs(folder / "photos")
    weights = folder / "regnety_160.pth"
    # Seeded: of another draw the likeliest class may be likelier than the loss below allows.
    seeding.seed_torch("a test of the recipe")
    torch.save({"model": timm.create_model("regnety_160").state_dict()}, weights)
    settings = derived(
        folder / "teacher.yaml",
        "teacher/regnety_160.yaml",
        precision="float32",
        batch_size=12,
        weights={"path": str(weights), "sha256": hashing.sha256_file(weights)},
    )
    # With three views of each image of a pair, a step of DeiT-B at 384 pixels would take half a minute.
    views = {
        repeats: derived(
            folder / f"views-{repeats}.yaml", "views/imagenet.yaml", aug_seeds=repeats, policy={"repeats": repeats}
        )
        for repeats in (3, 1)
    }
    data = derived(folder / "data.yaml", "dataset/imagenet.yaml", allow_empty_classes=True)
    shards = {"shards": folder / "shards"}
    run(prepare_command, config=data, source=folder / "photos", out=folder / "shards", **written(folder, "prepare"))
    run(
        teacher_command,
        config=settings,
        views=views[3],
        **shards,
        scratch=folder / "training",
        out=folder / "teacher",
        **written(folder, "teacher"),
    )
    for repeats, file in views.items():
        rows = {"tail": {"rank": 3, "fit_tars": 1}, "seeds_per_unit": repeats, "workers": 0}
        run(
            cache_command,
            config=derived(folder / "rows.yaml", "cache/imagenet.yaml", **rows),
            views=file,
            teacher_config=settings,
            **shards,
            teacher=folder / "teacher",
            scratch=folder / "units",
            out=folder / f"cache-{repeats}",
            **written(folder, f"cache-{repeats}"),
        )
    # From here on there is no teacher.
    shutil.rmtree(folder / "teacher")
    weights.unlink()
    return folder


def written(folder: Path, name: str) -> dict[str, Path]:
    return {"metrics": folder / f"{name}.json", "cost": folder / f"{name}-cost.json"}


def test_the_cache_holds_the_teachers_answers_to_mixed_views(run_folder):
    store = store_reader.open(run_folder / "cache-3/train.zarr")
    teacher = store.recipe.teacher
    assert (teacher.architecture, teacher.size, teacher.num_classes) == ("regnety_160", 224, 1000)
    assert (store.recipe.policy.repeats, store.extent.aug_seeds) == (3, 3)
    assert store.recipe.policy.mix is not None
    assert json.loads((run_folder / "cache-3.json").read_text())["train"]["views"] == 2 * TRAIN * 3
    assert json.loads((run_folder / "teacher.json").read_text())["parameters"] == 83_590_140


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly if name in AT_NIGHT else ()) for name in STUDENTS]
)
def test_two_steps_and_an_evaluation(run_folder, name):
    folder, repeats = run_folder / name, 1 if name.startswith("b") else 3
    folder.mkdir()
    # A step of one pair of images, a pass of two pairs.
    settings = derived(
        folder / "student.yaml",
        f"student/{STUDENTS[name]}.yaml",
        epochs=repeats,
        warmup_epochs=0,
        batch_size=2 * repeats,
        lanes=1,
        workers=0,
        precision="float32",
        log_every=1,
    )
    given = {
        "student": name.replace("384", ""),
        "params": ROOT / "configs/params/imagenet.yaml",
        "config": settings,
        "views": run_folder / f"views-{repeats}.yaml",
        "shards": run_folder / "shards",
    }
    run(
        train_command,
        **given,
        cache=run_folder / f"cache-{repeats}/train.zarr",
        scratch=folder / "scratch",
        out=folder / "student",
        curves=folder / "curves",
        cost=folder / "train.json",
    )
    run(
        evaluate_command,
        **given,
        cache=run_folder / f"cache-{repeats}/val.zarr",
        weights=folder / "student",
        out=folder / "predictions",
        metrics=folder / "metrics.json",
        cost=folder / "evaluate.json",
    )
    require_learnt(folder, name.partition("-")[2], yaml.safe_load(settings.read_text()))
    # pytest keeps folders, and these are 2 GB of weights.
    shutil.rmtree(folder)


def require_learnt(folder: Path, kind: str, settings: dict[str, object]) -> None:
    cost = json.loads((folder / "train.json").read_text())
    assert (cost["steps"], cost["views"]) == (2, 2 * settings["batch_size"])
    # Near the entropy of a thousand classes: two steps teach nothing, and do no harm.
    assert np.allclose(curve(folder, "label_loss"), np.log(1000), atol=1.5)
    if kind in {"hard", "token"}:
        assert np.allclose(curve(folder, "teacher_loss"), np.log(1000), atol=1.5)
    elif kind == "soft":
        assert all(0 < loss < 10 for loss in curve(folder, "teacher_loss"))
    metrics = json.loads((folder / "metrics.json").read_text())
    token = kind == "token"
    assert set(metrics["heads"]) == ({"class", "dist", "both", "sum_softmax"} if token else {"class"})
    assert (metrics["images"], metrics["classes"]) == (2 * VAL, 1000)
    assert metrics["architecture"] == settings["distilled_architecture" if token else "architecture"]
    with safe_open(folder / "student/model.safetensors", "pt") as weights:
        tokens = weights.get_slice("pos_embed").get_shape()[1]
    assert tokens == (settings["size"] // 16) ** 2 + 1 + token


def curve(folder: Path, name: str) -> list[float]:
    lines = (folder / f"curves/plots/metrics/{name}.tsv").read_text().splitlines()[1:]
    assert len(lines) == 2
    return [float(line.split("\t")[-1]) for line in lines]
