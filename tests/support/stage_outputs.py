"""A whole, tiny run: shards, teacher, stores, students and predictions, as the stages leave them."""

import io
import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from teachonce.cache import assembly, cache_config
from teachonce.core import files, run_record
from teachonce.evaluate import evaluate_student
from teachonce.prepare import tar_writer
from teachonce.report import load_metrics, write_report
from teachonce.shards import index
from teachonce.student import student_run, student_spec, train_cached, train_config
from teachonce.teacher import teacher_config, teacher_network
from teachonce.views import view_policy, views_config

CLASSES = ("<b>bold</b>", "\"quoted\" & 'co'", "{{ 7 * 7 }}", "cat", "dog", "$x_1$", "ünï", "")
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
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    epochs=3,
    batch_size=4,
    lanes=2,
    warmup_epochs=0,
    lr=0.01,
    log_every=1,
)
# Not in alphabetical order: params.yaml's order is the page's.
STUDENTS = {
    "plain": student_spec.PlainSpec(model="tiny", kind="none"),
    "zeal": student_spec.SoftSpec(model="tiny", kind="soft", alpha=0.5, tau=2.0),
    "hard-1": student_spec.HardSpec(model="tiny", kind="hard", alpha=0.25),
}


@dataclass(frozen=True, slots=True)
class World:
    """A whole run, as the stages leave it."""

    root: Path

    def predictions_sha256(self, name: str) -> str:
        return json.loads((self.root / "records" / "evaluate" / f"{name}.json").read_text())["predictions_sha256"]

    def paths(self) -> write_report.ReportPaths:
        root = self.root
        return write_report.ReportPaths(
            params=root / "params.yaml",
            records=root / "records",
            costs=root / "costs",
            curves=root / "curves",
            shards=root / "shards",
            cache=root / "cache",
            predictions=root / "predictions",
            out=root / "report",
        )

    def gather(self, names: Collection[str]) -> load_metrics.StageMetrics:
        return load_metrics.collect(self.root / "records", self.root / "costs", self.root / "curves", names)


def _image(seed: int, size: int = 20) -> bytes:
    raw = np.random.Philox(key=seed).random_raw(size * size * 3 // 8 + 1).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(np.frombuffer(raw, np.uint8)[: size * size * 3].reshape(size, size, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def _shards(folder: Path, labelled: Callable[[int], bool]) -> index.Shards:
    folder.mkdir(parents=True)
    shardlist = []
    for split, count, rows_per_tar in (("train", 8, 8), ("val", 13, 5)):
        samples = [
            tar_writer.EncodedImage(
                f"{split}<{row}>", "png", _image(100 * count + row), row % len(CLASSES) if labelled(row) else -1
            )
            for row in range(count)
        ]
        shardlist += list(tar_writer.write_samples(samples, folder, split=split, rows_per_tar=rows_per_tar))
    index.write(folder, base=folder, classes=CLASSES, rows_per_tar=8, shardlist=shardlist)
    return index.read(folder)


def build(
    root: Path,
    k: int | str,
    students: dict[str, student_spec.StudentSpec] = STUDENTS,
    labelled: Callable[[int], bool] = lambda _: True,
) -> World:
    """Shards, teacher, stores, students, predictions, and what their stages say of them."""
    timer, records = run_record.Timer(), root / "records"
    shards = _shards(root / "shards", labelled)
    splits = {
        split: {
            "samples": (count := shards.index.nsamples(split)),
            "unlabelled": count - shards.index.labelled(split),
            "tars": len(shards.index.of_split(split)),
            "bytes": 12_345,
        }
        for split in index.SPLITS
    }
    files.write_json(records / "prepare.json", {"classes": len(CLASSES), **splits})
    settings = teacher_config.TeacherConfig(
        architecture="test_resnet",
        size=24,
        mean=(0.5,) * 3,
        std=(0.1,) * 3,
        weights=teacher_config.TrainedWeights(kind="fit", policy=view_policy.Policy(), epochs=3, batch_size=4, lr=0.1),
    )
    network = teacher_network.build_network(settings, len(CLASSES))
    teacher_network.save(root / "teacher", network, settings, CLASSES)
    files.write_json(records / "teacher.json", {"architecture": "test_resnet", "parameters": 1234, "val_top1": 0.1})
    stores = assembly.build_stores(
        shards,
        teacher=root / "teacher",
        views=VIEWS,
        settings=cache_config.CacheConfig(k=k, seeds_per_unit=1, workers=0),
        batch_size=4,
        scratch=root / "units",
        out=root / "cache",
    )
    files.write_json(records / "cache.json", stores.metrics)
    run_record.write_cost(root / "costs" / "cache.json", timer, **stores.unit_counts)
    for stage in ("prepare", "teacher"):
        run_record.write_cost(root / "costs" / f"{stage}.json", timer)
    for name, student in students.items():
        _student(root, name, student)
    entries = {name: student.model_dump(mode="json", exclude_none=True) for name, student in students.items()}
    (root / "params.yaml").write_text(yaml.safe_dump({"students": entries}, sort_keys=False))
    return World(root)


def _student(root: Path, name: str, student: student_spec.StudentSpec) -> None:
    timer = run_record.Timer()
    whole = student_spec.Student(name, student, SETTINGS)
    folders = student_run.RunFolders(root / "scratch", root / "students" / name, root / "curves" / name)
    done = train_cached.train_from_cache(whole, VIEWS, root / "shards", root / "cache" / "train.zarr", folders)
    run_record.write_cost(root / "costs" / "train" / f"{name}.json", timer, **done)
    evaluation = evaluate_student.evaluate(
        whole,
        VIEWS.evaluation,
        evaluate_student.EvaluationPaths(
            root / "shards", root / "cache" / "val.zarr", root / "students" / name, root / "predictions" / name
        ),
    )
    files.write_json(
        root / "records" / "evaluate" / f"{name}.json", evaluation.model_dump(mode="json", exclude_none=True)
    )
    run_record.write_cost(root / "costs" / "evaluate" / f"{name}.json", timer, images=evaluation.images)


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> World:
    """Whole rows; to be read only."""
    return build(tmp_path_factory.mktemp("whole"), "all")


@pytest.fixture(scope="session")
def some(tmp_path_factory) -> World:
    """Every second image has a label; to be read only."""
    return build(tmp_path_factory.mktemp("some"), "all", labelled=lambda row: row % 2 == 0)


@pytest.fixture(scope="session")
def bare(tmp_path_factory) -> World:
    """No image has a label, and the teacher is all that students learn from; to be read only."""
    pupil = student_spec.SoftSpec(model="tiny", kind="soft", alpha=1.0, tau=2.0, token=False)
    twin = student_spec.HardSpec(model="tiny", kind="hard", alpha=1.0)
    return build(tmp_path_factory.mktemp("bare"), "all", {"pupil": pupil, "twin": twin}, lambda _: False)


def recached(whole: World, root: Path, **settings: object) -> World:
    """The students of whole rows, beside a cache of other rows."""
    shutil.copytree(whole.root, root)
    stores = assembly.build_stores(
        index.read(root / "shards"),
        teacher=root / "teacher",
        views=VIEWS,
        settings=cache_config.CacheConfig(k=3, seeds_per_unit=1, workers=0, **settings),
        batch_size=4,
        scratch=root / "units",
        out=root / "cache",
    )
    files.write_json(root / "records" / "cache.json", stores.metrics)
    return World(root)


@pytest.fixture(scope="session")
def top3(tmp_path_factory, whole) -> World:
    """Rows of three classes; to be read only."""
    return recached(whole, tmp_path_factory.mktemp("top3") / "world")


@pytest.fixture(scope="session")
def coded(tmp_path_factory, whole) -> World:
    """Rows of three classes and four coefficients; to be read only."""
    tail = cache_config.TransformConfig(rank=4, step=0.5, fit_tars=1)
    return recached(whole, tmp_path_factory.mktemp("coded") / "world", tail=tail)


@pytest.fixture
def copied(whole, tmp_path) -> World:
    """A copy to spoil."""
    shutil.copytree(whole.root, tmp_path / "world")
    return World(tmp_path / "world")
