"""Real digits in real tars, a tiny teacher that has seen them, and its caches: made once, copied to be damaged."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import feed
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn import datasets

from teachonce.cache import basis_fit, cache_config, executors, run_units, store_writer
from teachonce.core import config, files, hashing
from teachonce.prepare import tar_writer
from teachonce.shards import decode, index, sample_reader
from teachonce.student import process_group, schedule, student_model, student_spec, train_config, trainer
from teachonce.teacher import teacher_config, teacher_network, teacher_training
from teachonce.views import draw, render, view_policy, views_config

ROWS = 53
ROWS_PER_TAR = 20
AUG_SEEDS = 4
CLASSES = tuple("0123456789")
POLICY = {
    "affine": {"degrees": 10.0, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5.0},
    "rand_augment": {"magnitude": 5.0},
    "erase": {"probability": 0.25, "scale": [0.02, 0.15]},
}
VIEWS = {"policy": POLICY, "evaluation": {}, "aug_seeds": AUG_SEEDS}
TEACHER = {
    "architecture": "test_efficientnet",
    "size": 24,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "batch_size": 16,
    "weights": {"kind": "fit", "policy": {}, "epochs": 12, "batch_size": 16, "lr": 0.01},
}
STUDENT = {
    "architecture": "deit_tiny_patch16_224",
    "distilled_architecture": "deit_tiny_distilled_patch16_224",
    "arguments": {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "size": 16,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "epochs": 10,
    "batch_size": 8,
    "lanes": 4,
    "buffer": 6,
    "lr": 0.001,
    "warmup_epochs": 2,
    "drop_path": 0.1,
    "ema_decay": 0.9,
    "log_every": 1,
}


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((pixels * 15).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _samples(count: int, first: int = 0) -> list[tar_writer.EncodedImage]:
    digits = datasets.load_digits()
    return [
        tar_writer.EncodedImage(f"digits/{row:04d}", "png", _png(digits.images[row]), int(digits.target[row]))
        for row in range(first, first + count)
    ]


@dataclass(frozen=True)
class World:
    """A folder with shards, teacher and caches by name."""

    root: Path

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def teacher(self) -> Path:
        return self.root / "teacher"

    def cache(self, name: str = "whole") -> Path:
        return self.root / f"{name}.zarr"

    def tar(self, number: int) -> Path:
        return self.shards / f"train-{number:06d}.tar"

    def copy(self, root: Path) -> "World":
        """Another one whose files can be damaged; its tars and objects are writable."""
        shutil.copytree(self.root, root)
        for path in root.rglob("*"):
            if path.is_file():
                path.chmod(0o644)
        return World(root)

    def plan(self, cache: str = "whole", **values: object) -> feed.Plan:
        plan = feed.Plan(
            shards=self.shards,
            cache=self.cache(cache),
            size=16,
            batch_size=8,
            lanes=4,
            buffer=6,
            passes=2,
            aug_seeds=AUG_SEEDS,
            seed=7,
        )
        return replace(plan, **values)  # type: ignore[arg-type]

    def add_cache(
        self, name: str, k: object, views: dict[str, object] = VIEWS, coded: dict[str, object] | None = None
    ) -> None:
        """Run the teacher over the training split."""
        shards = index.read(self.shards)
        parsed = config.parse(views, views_config.ViewsConfig, "views")
        settings = config.parse(
            {"k": k, "seeds_per_unit": 2, "tail": coded or "flat"}, cache_config.CacheConfig, "cache"
        )
        job = run_units.create_job(
            shards,
            "train",
            teacher_network.read_identity(self.teacher),
            parsed.policy,
            aug_seeds=parsed.aug_seeds,
            settings=settings,
            scratch=self.root / "units",
            batch_size=TEACHER["batch_size"],
            device="cpu",
        )
        executor = executors.InProcessExecutor(self.teacher)
        fitted = None
        if isinstance(settings.tail, cache_config.TransformConfig):
            fitted = basis_fit.load_or_fit(job, settings.tail, executor)
            job = basis_fit.with_transform_tail(job, fitted, settings.tail.step, fit_tars=settings.tail.fit_tars)
        done = run_units.compute_missing(job, executor, name)
        store_writer.assemble(self.cache(name), job.recipe, job.extent, done.units, fitted.basis if fitted else None)
        shutil.rmtree(self.root / "units")

    def add_shards(self, samples: list[tar_writer.EncodedImage], rows_per_tar: int = ROWS_PER_TAR) -> None:
        """Write the training split and its index."""
        self.shards.mkdir(parents=True)
        shardlist = list(tar_writer.write_samples(samples, self.shards, split="train", rows_per_tar=rows_per_tar))
        index.write(self.shards, base=self.shards, classes=CLASSES, rows_per_tar=rows_per_tar, shardlist=shardlist)

    def samples(self) -> dict[str, sample_reader.Sample]:
        """All training samples by key."""
        shards = index.read(self.shards)
        return {
            sample.key: sample
            for shard in shards.index.of_split("train")
            for sample in sample_reader.verified_samples(shard, shards.path(shard))
        }

    def view(self, sample: sample_reader.Sample, aug_seed: int, size: int = 16) -> np.ndarray:
        """The view of a sample, rendered here and now."""
        policy = config.parse(VIEWS, views_config.ViewsConfig, "views").policy
        return render.to_pixels(
            decode.rgb_pixels(sample.image, sample.key), draw.view_params(policy, sample.key, aug_seed), size
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    # Threads cost more than they bring in networks this small, and pytest-xdist has filled the cores already.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with _one_thread():
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    with _one_thread():
        return _world(tmp_path_factory)


def _world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("student") / "world")
    made.add_shards(_samples(ROWS))
    settings = config.parse(TEACHER, teacher_config.TeacherConfig, "teacher")
    network = teacher_network.build_network(settings, len(CLASSES))
    job = teacher_training.TrainingJob(
        settings, settings.weights, index.read(made.shards), view_policy.Policy(), tmp_path_factory.mktemp("scratch")
    )
    teacher_training.train_network(network, job, torch.device("cpu"))
    teacher_network.save(made.teacher, network, settings, CLASSES)
    made.add_cache("whole", "all")
    made.add_cache("top3", 3)
    made.add_cache("coded", 3, coded={"rank": 4, "step": 0.5, "fit_tars": 2})
    return made


@pytest.fixture
def broken(world, tmp_path):
    """A copy to damage."""
    return world.copy(tmp_path / "world")


@pytest.fixture(scope="session")
def samples_of():
    return _samples


@pytest.fixture(scope="session")
def recipe():
    """A student's training configuration with some values replaced."""

    def parsed(**values: object) -> train_config.TrainConfig:
        return config.parse({**STUDENT, **values}, train_config.TrainConfig, "configs/student/x.yaml")

    return parsed


@pytest.fixture(scope="session")
def student():
    """An entry of `students:`."""

    def parsed(kind: str = "soft", **values: object) -> student_spec.StudentSpec:
        knobs = {"none": {}, "soft": {"alpha": 0.6, "tau": 3.0}, "hard": {"alpha": 0.5}}[kind]
        data = {"model": "x", "kind": kind, **knobs, **values}
        return student_spec.parse_spec(data, Path("params.yaml"), "x")

    return parsed


@pytest.fixture(scope="session")
def trainer_of():
    """A trainer of the digits."""

    def make(settings: train_config.TrainConfig, knobs: student_spec.StudentSpec, **values: object) -> trainer.Trainer:
        defaults = {
            "num_classes": 10,
            "length": schedule.Schedule(7, 70, 14),
            "world": process_group.single_process(),
        }
        return trainer.Trainer(student_spec.Student("x", knobs, settings), **{**defaults, **values})

    return make


@pytest.fixture(scope="session")
def views():
    def parsed(**values: object) -> views_config.ViewsConfig:
        return config.parse({**VIEWS, **values}, views_config.ViewsConfig, "configs/views/x.yaml")

    return parsed


@pytest.fixture
def overflowing(tmp_path, recipe, student) -> dict[str, object]:
    """An entry `start:` of weights that are finite, and whose answers are not."""
    path = tmp_path / "overflowing.safetensors"
    network = student_model.create_model(student_spec.Student("x", student(), recipe()), len(CLASSES))
    state = network.state_dict() | {"head.weight": torch.full_like(network.head.weight, 3e38)}
    safetensors.torch.save_file(state, path)
    return {"path": str(path), "sha256": hashing.sha256_file(path)}


@pytest.fixture
def command(tmp_path, recipe):
    """Configuration files and the arguments of `stages.train` for a world."""

    def write_files(
        world: World,
        *,
        cache: str = "whole",
        students: dict[str, object] | None = None,
        settings: dict[str, object] | None = None,
        views: dict[str, object] = VIEWS,
        out: str = "out",
    ) -> list[str]:
        folder = tmp_path / out
        default = {"x": {"model": "x", "kind": "soft", "alpha": 0.6, "tau": 3.0, "seed": 3}}
        # JSON is YAML.
        files.write_json(folder / "params.yaml", {"students": students or default})
        files.write_json(folder / "student.yaml", {**STUDENT, **(settings or {})})
        files.write_json(folder / "views.yaml", views)
        arguments = {
            "student": "x",
            "params": folder / "params.yaml",
            "config": folder / "student.yaml",
            "views": folder / "views.yaml",
            "shards": world.shards,
            "cache": world.cache(cache),
            "scratch": folder / "scratch",
            "out": folder / "model",
            "curves": folder / "curves",
            "cost": folder / "cost.json",
        }
        return [part for name, value in arguments.items() for part in (f"--{name}", str(value))]

    return write_files
