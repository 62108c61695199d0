"""The cache stage on three small tars of digits and a tiny teacher, as a process or in this one."""

import hashlib
import io
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import stage_processes
import torch
import yaml
from PIL import Image
from sklearn import datasets

from teachonce.cache import assembly, cache_config
from teachonce.core import config, seeding
from teachonce.prepare import tar_writer
from teachonce.shards import index
from teachonce.store import store_reader
from teachonce.teacher import predictor, teacher_config, teacher_network
from teachonce.views import views_config

ROOT = Path(__file__).parents[2]
CLASSES = tuple("0123456789")
SIZE = 32


def png(number: int) -> bytes:
    """A digit, 8 × 8, enlarged nowhere."""
    grey = (datasets.load_digits().images[number] * 15).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def write_shards(
    folder: Path, counts: tuple[int, ...] = (8, 8, 5), val: int = 7, labelled: Callable[[int], bool] = lambda _: True
) -> index.Shards:
    """Tars of digits with these counts of rows, and one validation tar; some rows may be without a label."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = datasets.load_digits().target
    total, entries = 0, []
    for split, rows in (("train", sum(counts)), ("val", val)):
        samples = [
            tar_writer.EncodedImage(
                f"{split}-{row:03d}", "png", png(total + row), int(labels[total + row]) if labelled(row) else -1
            )
            for row in range(rows)
        ]
        entries += tar_writer.write_samples(samples, folder, split=split, rows_per_tar=max(counts))
        total += rows
    index.write(folder, base=folder, classes=CLASSES, rows_per_tar=max(counts), shardlist=entries)
    return index.read(folder)


def settings_of(**values: object) -> teacher_config.TeacherConfig:
    plain = {
        "architecture": "test_resnet",
        "size": SIZE,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "batch_size": 12,
        "weights": {"kind": "fit", "policy": {}, "epochs": 1, "batch_size": 16, "lr": 0.01, "warmup_epochs": 0},
    }
    return config.parse(plain | values, teacher_config.TeacherConfig, "configs/teacher/x.yaml")


def save_teacher(folder: Path, *, classes: tuple[str, ...] = CLASSES, scale: float | None = 30.0) -> Path:
    """A tiny CNN with seeded weights; `scale` sharpens its answers, None makes all of them overflow."""
    settings = settings_of()
    network = teacher_network.build_network(settings, len(classes))
    seeding.seed_torch("statistics")
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    head = network.get_classifier()
    head.weight.data.mul_(scale or 1.0)
    if scale is None:
        for tensor in head.parameters():
            tensor.data.fill_(torch.finfo().max)
    teacher_network.save(folder, network, settings, classes)
    return folder


@dataclass(frozen=True)
class Bench:
    """The cache stage as a process, in a folder of its own."""

    root: Path
    shards: Path
    teacher: Path
    views: dict = field(
        default_factory=lambda: {
            "policy": {"affine": {"degrees": 15.0, "translate": 0.1}, "erase": {"probability": 0.5}},
            "evaluation": {},
            "aug_seeds": 4,
        }
    )
    cache: dict = field(default_factory=lambda: {"k": "all", "seeds_per_unit": 2, "workers": 0})
    batch_size: int = 6
    compiled: bool = False
    scratch: str = "scratch"
    code: Path = ROOT

    def but(self, **changes: object) -> "Bench":
        return replace(self, **changes)

    @property
    def out(self) -> Path:
        return self.root / "out"

    def command(self) -> list[str]:
        self.root.mkdir(parents=True, exist_ok=True)
        teacher = json.loads(settings_of(batch_size=self.batch_size, compile=self.compiled).model_dump_json())
        for name, data in (("views", self.views), ("cache", self.cache), ("teacher", teacher)):
            (self.root / f"{name}.yaml").write_text(yaml.safe_dump(data))
        paths = {
            "config": self.root / "cache.yaml",
            "views": self.root / "views.yaml",
            "teacher-config": self.root / "teacher.yaml",
            "shards": self.shards,
            "teacher": self.teacher,
            "scratch": self.root / self.scratch,
            "out": self.out,
            "metrics": self.root / "metrics.json",
            "cost": self.root / "cost.json",
        }
        options = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
        return ["-W", "error", "-m", "stages.cache", *options]

    def start(self) -> stage_processes.Process:
        # Tests share the machine: one thread each is quicker than two that wait for one another.
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return stage_processes.Process(self.command(), cwd=self.code, environment=environment)

    def run(self) -> dict[str, dict[str, int]]:
        """Run it to its end; what it did, by split."""
        process = self.start()
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        return json.loads((self.root / "cost.json").read_text())

    def make(self, **more: object) -> dict[str, dict[str, int]]:
        """What `run` does, in this process: spares the seconds of importing torch."""
        built = assembly.build_stores(
            index.read(self.shards),
            teacher=self.teacher,
            views=config.parse(self.views, views_config.ViewsConfig, "views"),
            settings=config.parse(self.cache, cache_config.CacheConfig, "cache"),
            batch_size=self.batch_size,
            scratch=self.root / self.scratch,
            out=self.out,
            **more,
        )
        return built.unit_counts

    def refused(self) -> str:
        """Run it to its refusal; the one line."""
        process = self.start()
        stdout, stderr = process.communicate(timeout=300)
        assert (process.returncode, stdout) == (1, "")
        assert "Traceback" not in stderr, stderr
        return stderr.strip().splitlines()[-1]

    def kill_when(self, moment: Callable[[], bool]) -> None:
        """Start it, kill -9 it at a moment."""
        process = self.start()
        limit = time.monotonic() + 120
        while not moment():
            assert process.poll() is None, f"ended before the moment came: {process.communicate()[1]}"
            assert time.monotonic() < limit
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def units(self) -> list[Path]:
        """Finished units in the scratch folder."""
        return sorted(
            path.parent for path in (self.root / self.scratch).glob("*/unit.json") if path.parent.suffix == ""
        )

    def open(self, split: str = "train") -> store_reader.Cache:
        return store_reader.open(self.out / f"{split}.zarr")

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file of the output."""
        paths = sorted(path for path in self.out.rglob("*") if path.is_file())
        return {str(path.relative_to(self.out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As the processes that tests start, whose bytes are compared with those made here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> index.Shards:
    """Three training tars of 8, 8 and 5 rows, one validation tar of 7."""
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher")


@pytest.fixture
def bench(tmp_path, shards, teacher) -> Bench:
    return Bench(tmp_path / "bench", shards.base, teacher)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, shards, teacher) -> Bench:
    """A run that nothing interrupted; not to be changed."""
    finished = Bench(tmp_path_factory.mktemp("whole"), shards.base, teacher)
    finished.run()
    return finished


@pytest.fixture
def coded(bench):
    """A cache stage whose rows have a transform tail."""
    return bench.but(
        cache={"k": 2, "seeds_per_unit": 2, "workers": 0, "tail": {"rank": 6, "step": 0.25, "fit_tars": 2}}
    )


@pytest.fixture
def forwarded(monkeypatch):
    """Counts views that a teacher answers."""
    views = []
    logits = predictor.Predictor.logits
    monkeypatch.setattr(
        predictor.Predictor, "logits", lambda self, batch: views.append(len(batch)) or logits(self, batch)
    )
    return lambda: sum(views)


@pytest.fixture(scope="session")
def settings():
    return settings_of


@pytest.fixture(scope="session")
def make_teacher():
    return save_teacher


@pytest.fixture(scope="session")
def make_shards():
    return write_shards
