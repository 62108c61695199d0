"""Digits, a teacher that knows them and its stores: on the GPU where there is one, else at toy size on the CPU.

Imports only what a bare GPU machine has beside the project's own dependencies.
"""

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import datasets

from teachonce.cache import assembly, cache_config
from teachonce.core import arithmetic, config, files
from teachonce.prepare import tar_writer
from teachonce.shards import index
from teachonce.student import student_spec, train_config
from teachonce.teacher import teacher_config, teacher_network, teacher_training
from teachonce.views import view_policy, views_config

ROOT = Path(__file__).parents[2]
CLASSES = tuple("0123456789")
AUG_SEEDS = 4
POLICY = {
    "affine": {"degrees": 10.0, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5.0},
    "erase": {"probability": 0.25, "scale": [0.02, 0.15]},
    "mix": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "probability": 0.5, "switch_probability": 0.5},
    "repeats": 2,
}
VIEWS = {"policy": POLICY, "evaluation": {}, "aug_seeds": AUG_SEEDS}
NORMAL = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
STUDENT = {
    "architecture": "deit_tiny_patch16_224",
    "distilled_architecture": "deit_tiny_distilled_patch16_224",
    "arguments": {"img_size": 16, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
    "size": 16,
    **NORMAL,
    "epochs": 10,
    "batch_size": 16,
    "lanes": 4,
    "buffer": 6,
    "lr": 0.001,
    "warmup_epochs": 2,
    "drop_path": 0.1,
    "ema_decay": 0.9,
    "log_every": 1,
    "precision": "bfloat16",
}


@dataclass(frozen=True)
class Scale:
    """What fits the device."""

    train: int
    """Training images."""
    val: int
    """Validation images."""
    epochs: int
    """Of the teacher's training."""


TOY, WHOLE = Scale(train=60, val=20, epochs=12), Scale(train=480, val=200, epochs=10)


@pytest.fixture(scope="session")
def device() -> torch.device:
    # As every stage does, whatever this machine's environment says of TF32.
    arithmetic.use_exact_float32()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def scale(device) -> Scale:
    return WHOLE if device.type == "cuda" else TOY


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    # Threads cost more than they bring in networks this small.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sample(row: int, split: str) -> tar_writer.EncodedImage:
    digits = datasets.load_digits()
    buffer = io.BytesIO()
    Image.fromarray((digits.images[row] * 15).astype(np.uint8)).save(buffer, "PNG")
    return tar_writer.EncodedImage(f"{split}/{row:04d}", "png", buffer.getvalue(), int(digits.target[row]))


@dataclass(frozen=True)
class World:
    """Shards, and a teacher and its stores by precision."""

    root: Path

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    def teacher(self, precision: str) -> Path:
        return self.root / precision / "teacher"

    def stores(self, precision: str, k: str = "all") -> Path:
        return self.root / precision / k


@pytest.fixture(scope="session")
def world(tmp_path_factory, device, scale) -> World:
    world = World(tmp_path_factory.mktemp("gpu"))
    world.shards.mkdir()
    shardlist = []
    for split, rows, tar in (("train", range(scale.train), scale.train // 3), ("val", range(-scale.val, 0), scale.val)):
        shardlist += tar_writer.write_samples(
            (sample(row, split) for row in rows), world.shards, split=split, rows_per_tar=tar
        )
    most = max(shard.nsamples for shard in shardlist)
    index.write(world.shards, base=world.shards, classes=CLASSES, rows_per_tar=most, shardlist=shardlist)
    shards = index.read(world.shards)
    for precision in ("float32", "bfloat16"):
        settings = config.parse(
            {
                "architecture": "test_resnet",
                "size": 24,
                **NORMAL,
                "batch_size": 64,
                "precision": precision,
                "weights": {"kind": "fit", "policy": {}, "epochs": scale.epochs, "batch_size": 20, "lr": 0.01},
            },
            teacher_config.TeacherConfig,
            "teacher",
        )
        network = teacher_network.build_network(settings, len(CLASSES))
        job = teacher_training.TrainingJob(
            settings, settings.weights, shards, view_policy.Policy(), tmp_path_factory.mktemp("scratch")
        )
        teacher_training.train_network(network, job, device)
        teacher_network.save(world.teacher(precision), network, settings, CLASSES)
        for k in ("all", 3) if precision == "bfloat16" else ("all",):
            assembly.build_stores(
                shards,
                teacher=world.teacher(precision),
                views=config.parse(VIEWS, views_config.ViewsConfig, "views"),
                settings=cache_config.CacheConfig(k=k, seeds_per_unit=2, workers=0),
                batch_size=settings.batch_size,
                scratch=world.root / precision / "units",
                out=world.stores(precision, str(k)),
            )
    return world


@pytest.fixture(scope="session")
def views() -> views_config.ViewsConfig:
    return config.parse(VIEWS, views_config.ViewsConfig, "views")


@pytest.fixture(scope="session")
def recipe():
    """A student's training configuration with some values replaced."""

    def parsed(**values: object) -> train_config.TrainConfig:
        return config.parse({**STUDENT, **values}, train_config.TrainConfig, "configs/student/x.yaml")

    return parsed


@pytest.fixture(scope="session")
def student() -> student_spec.StudentSpec:
    return student_spec.SoftSpec(model="x", kind="soft", alpha=0.6, tau=3.0, seed=3)


@pytest.fixture
def command(world, tmp_path):
    """The arguments of `stages.train`."""

    def write_files(name: str, **settings: object) -> list[str]:
        folder = tmp_path / name
        knobs = {"model": "x", "kind": "soft", "alpha": 0.6, "tau": 3.0, "seed": 3}
        # JSON is YAML.
        files.write_json(folder / "params.yaml", {"students": {"x": knobs}})
        files.write_json(folder / "student.yaml", {**STUDENT, **settings})
        files.write_json(folder / "views.yaml", VIEWS)
        arguments = {
            "student": "x",
            "params": folder / "params.yaml",
            "config": folder / "student.yaml",
            "views": folder / "views.yaml",
            "shards": world.shards,
            "cache": world.stores("bfloat16", "3") / "train.zarr",
            "scratch": folder / "scratch",
            "out": folder / "model",
            "curves": folder / "curves",
            "cost": folder / "cost.json",
        }
        parts = [part for key, value in arguments.items() for part in (f"--{key}", str(value))]
        return [sys.executable, "-m", "stages.train", *parts]

    return write_files
