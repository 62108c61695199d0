"""How fast a student learns: steps as `train` takes them, loader included, from a cache of made-up rows."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from teachonce.cache import cache_config, run_units, store_writer, unit_computation, unit_lookup
from teachonce.core import seeding
from teachonce.format import schema
from teachonce.shards import index
from teachonce.student import (
    batch_shares,
    batching,
    loader,
    process_group,
    row_source,
    schedule,
    student_model,
    student_spec,
    train_config,
    trainer,
)
from teachonce.teacher import predictor, teacher_network
from teachonce.tools.estimate import measure, sample_shards, teacher_speed
from teachonce.views import view_policy

STEPS = 2
"""Of a pass over the sample, and of a round."""
_FOREVER = 10**6
_PX = 8  # side of the views that made-up rows answer


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What all students learn from."""

    real: index.Shards
    """The images."""
    known: schema.Teacher
    """The teacher."""
    policy: view_policy.Policy
    """Of the views."""
    rows: cache_config.CacheConfig
    """What a row holds."""


def process_count(config: train_config.TrainConfig) -> int:
    """Training processes that share a batch; on a CPU they would share its cores, and one is timed in their place."""
    return config.launcher.processes if config.launcher and torch.cuda.is_available() else 1


def weights_bytes(student: student_spec.Student, num_classes: int) -> int:
    """Of a student's network, which is not made."""
    with torch.device("meta"):
        network = student_model.create_model(student, num_classes)
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def measure_steps(
    folder: Path, source: TrainingData, student: student_spec.Student, seconds: float
) -> measure.Throughput:
    """Views a second of one training process; where a whole batch would take too long, of smaller ones.

    Args:
        folder: a place to work in.
        source: images and rows.
        student: whose batch fits the policy.
        seconds: the time there is.
    """
    shared = process_count(student.config)
    lanes = student.config.lanes // shared
    views = lanes * batch_shares.views_per_mix_group(source.policy)
    most = student.config.batch_size // shared // views
    steps = _Steps(folder, source, student, lanes)
    with measure.within_memory(f"configs/student/{student.spec.model}.yaml"):
        # Loader processes take seconds to start: sizes are tried without them.
        size = measure.round_size(lambda size: steps.take(size, 0), most, seconds)
        workers = student.config.workers
        for _ in range(STEPS):
            # As many rounds as loaders hold ready at the start, and more.
            steps.take(size, workers)
        rounds = measure.time_rounds(lambda: steps.take(size, workers), seconds)
    steps.close()
    return measure.throughput(STEPS * size * views, rounds)


class _Steps:
    """A student that takes steps with batches of any size."""

    def __init__(self, folder: Path, source: TrainingData, student: student_spec.Student, lanes: int) -> None:
        self._folder, self._source, self._student, self._lanes = folder, source, student, lanes
        self._trainer = trainer.Trainer(
            student,
            num_classes=source.known.num_classes,
            length=schedule.Schedule(STEPS, 2 * _FOREVER, _FOREVER),
            world=process_group.single_process(),
            tail=self._rows(1).tail,
        )
        self._step = 0
        self._open: tuple[int, int] | None = None
        self._stream: Iterator[batching.Batch] = iter(())

    def take(self, size: int, workers: int) -> float:
        """A round with batches of `size` atoms a lane; its seconds, without what prepares it."""
        if self._open != (size, workers):
            self._begin(size, workers)
        began = time.perf_counter()
        for _ in range(STEPS):
            self._trainer.train_step(next(self._stream), self._step)
            self._step += 1
        if self._trainer.device.type == "cuda":
            # The host is ahead of it.
            torch.cuda.synchronize(self._trainer.device)
        return time.perf_counter() - began

    def close(self) -> None:
        """End the loaders."""
        self._stream = iter(())

    def _parts(self, size: int) -> int:
        """How many parts of a batch there are when each is about as large as it will be."""
        config = self._student.config
        whole = config.batch_size // process_count(config) // batch_shares.views_per_mix_group(self._source.policy)
        return max(1, round(config.accumulate * size * self._lanes / whole))

    def _begin(self, size: int, workers: int) -> None:
        self.close()
        views = size * self._lanes * batch_shares.views_per_mix_group(self._source.policy)
        values = {"batch_size": views, "lanes": self._lanes, "workers": workers, "accumulate": self._parts(size)}
        student = replace(self._student, config=self._student.config.model_copy(update=values))
        self._trainer.student = student
        on_host = process_group.World(0, 1, torch.device("cpu"))
        self._stream = loader.iter_batches(self._rows(size), student, _FOREVER, world=on_host)
        self._open = size, workers

    def _rows(self, size: int) -> row_source.CachedRows:
        """Shards and cache of a pass: a tar a lane."""
        place = self._folder / f"{self._lanes}-{size}"
        shards, cache = place / "shards", place / "train.zarr"
        if not cache.exists():
            images = 1 if self._source.policy.mix is None else 2
            sample = sample_shards.write_copies(shards, self._source.real, tars=self._lanes, rows=STEPS * size * images)
            _answer(cache, sample, self._source)
        return row_source.CachedRows(shards, cache, aug_seeds=self._source.policy.repeats)


def _answer(cache: Path, shards: index.Shards, source: TrainingData) -> None:
    """A store for one pass, whose rows a network of one layer gives: what a row says takes no time."""
    repeats = source.policy.repeats
    known = source.known.model_copy(update={"size": _PX, "precision": "float32"})
    work = run_units.create_job(
        shards,
        "train",
        known,
        source.policy,
        aug_seeds=repeats,
        settings=source.rows.model_copy(update={"seeds_per_unit": repeats, "rows_per_tar": None}),
        scratch=cache.parent / "units",
        batch_size=64 * repeats,
        device="cpu",
    )
    work, made = teacher_speed.with_noise_basis(work, source.rows, cache.parent)
    seeding.seed_torch("estimate")
    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, known.num_classes)
    )
    layer = predictor.Predictor(network.eval(), known, torch.device("cpu"))
    with ThreadPoolExecutor(teacher_network.available_cpus()) as pool:
        units = [
            (unit_lookup.finished_folder(work, item), unit_computation.compute(work, item, layer, pool))
            for item in run_units.planned_units(work)
        ]
    store_writer.assemble(cache, work.recipe, work.extent, units, made)
