import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from teachonce.cache import assembly, cache_config
from teachonce.core import hashing, sealed_files
from teachonce.evaluate import evaluate_student
from teachonce.prepare import tar_writer
from teachonce.shards import index
from teachonce.store import store_reader
from teachonce.student import student_model, student_spec, train_config
from teachonce.teacher import teacher_config, teacher_network
from teachonce.views import view_policy, views_config

CLASSES = tuple("abcdefgh")
VIEWS = views_config.ViewsConfig(
    policy=view_policy.Policy(flip=0.5, affine=view_policy.Affine(degrees=10)),
    evaluation=view_policy.Policy(center=0.75),
    aug_seeds=2,
)
SETTINGS = train_config.TrainConfig(
    architecture="deit_tiny_patch16_224",
    distilled_architecture="deit_tiny_distilled_patch16_224",
    arguments={"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2},
    size=16,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.4),
    epochs=1,
    batch_size=4,
    lanes=2,
    warmup_epochs=0,
    lr=0.01,
)
KINDS = {
    "plain": student_spec.PlainSpec(model="tiny", kind="none"),
    "soft": student_spec.SoftSpec(model="tiny", kind="soft", alpha=0.5, tau=2.0, seed=1),
}


def image(seed: int, size: int = 20) -> bytes:
    """A PNG of noise."""
    raw = np.random.Philox(key=seed).random_raw(size * size * 3 // 8 + 1).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(np.frombuffer(raw, np.uint8)[: size * size * 3].reshape(size, size, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shards(folder: Path, classes: tuple[str, ...] = CLASSES, first: int = 0) -> index.Shards:
    """Two training tars of 4 rows; validation tars of 5, 5 and 3."""
    folder.mkdir(parents=True)
    shardlist = []
    for split, count, rows_per_tar in (("train", 8, 4), ("val", 13, 5)):
        samples = [
            tar_writer.EncodedImage(f"{split}-{row:04d}", "png", image(first + 100 * count + row), row % len(classes))
            for row in range(count)
        ]
        shardlist += list(tar_writer.write_samples(samples, folder, split=split, rows_per_tar=rows_per_tar))
    index.write(folder, base=folder, classes=classes, rows_per_tar=5, shardlist=shardlist)
    return index.read(folder)


def write_stores(
    folder: Path, shards: index.Shards, *, seed: int = 0, k: int | str = "all", views: views_config.ViewsConfig = VIEWS
) -> Path:
    """Both stores, from a real network of random weights."""
    settings = teacher_config.TeacherConfig(
        architecture="test_resnet",
        size=24,
        mean=(0.5,) * 3,
        std=(0.1,) * 3,
        weights=teacher_config.TrainedWeights(
            kind="fit", policy=view_policy.Policy(), epochs=3, batch_size=4, lr=0.1, seed=seed
        ),
    )
    classes = shards.index.classes
    teacher_network.save(folder / "teacher", teacher_network.build_network(settings, len(classes)), settings, classes)
    assembly.build_stores(
        shards,
        teacher=folder / "teacher",
        views=views,
        settings=cache_config.CacheConfig(k=k, seeds_per_unit=1, workers=0),
        batch_size=4,
        scratch=folder / "units",
        out=folder / "cache",
    )
    return folder / "cache"


def write_student(folder: Path, student: student_spec.StudentSpec, cache: Path) -> torch.nn.Module:
    """A student's folder as training leaves it, of random weights."""
    recipe = store_reader.open(cache / "train.zarr").recipe
    whole = student_spec.Student("x", student, SETTINGS)
    network = student_model.create_model(whole, recipe.teacher.num_classes)
    for number, parameter in enumerate(network.parameters()):
        # Fresh heads are nearly zero: larger weights make answers that differ.
        bits = np.random.Philox(key=1000 * student.seed + number).random_raw(parameter.numel())
        noise = (bits >> np.uint64(40)).astype(np.float32) / 2**24 - 0.5
        parameter.data += torch.from_numpy(noise).view(parameter.shape)
    folder.mkdir(parents=True)
    student_model.save(
        folder, {student_model.EMA: network, student_model.RAW: network}, whole, recipe.teacher.num_classes
    )
    digest = hashing.sha256_file(folder / student_model.EMA)
    sealed_files.write_with_digest(
        folder / "record.json",
        {
            "student": student.model_dump(mode="json"),
            "recipe": SETTINGS.model_dump(mode="json"),
            "cache": recipe.model_dump(mode="json"),
            "accepted": [],
            "weights_sha256": digest,
            "raw_weights_sha256": digest,
            "cache_fingerprint": None,
            "aug_seeds": 2,
            "tau_beyond_cache": None,
            "versions": {},
        },
    )
    return network.eval()


@dataclass(frozen=True, slots=True)
class World:
    """Shards, stores and two students, to be read only."""

    root: Path
    shards: index.Shards
    networks: dict[str, torch.nn.Module]

    def paths(self, name: str, out: Path, **others: Path) -> evaluate_student.EvaluationPaths:
        evaluation_paths = evaluate_student.EvaluationPaths(
            shards=self.root / "shards", cache=self.root / "cache" / "val.zarr", weights=self.root / name, out=out
        )
        return replace(evaluation_paths, **others)

    def evaluate(self, name: str, out: Path, **others):
        batch_size = others.pop("batch_size", 4)
        return evaluate_student.evaluate(
            student_spec.Student(name, KINDS[name], SETTINGS),
            VIEWS.evaluation,
            self.paths(name, out, **others),
            batch_size=batch_size,
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    root = tmp_path_factory.mktemp("world")
    shards = write_shards(root / "shards")
    cache = write_stores(root, shards)
    return World(root, shards, {name: write_student(root / name, student, cache) for name, student in KINDS.items()})


@pytest.fixture
def make():
    """The writers above, for worlds that differ."""
    return {"shards": write_shards, "stores": write_stores, "student": write_student, "views": VIEWS, "kinds": KINDS}


@pytest.fixture
def settings() -> train_config.TrainConfig:
    return SETTINGS
