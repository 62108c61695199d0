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
"""Steps of a pass over the sample images, and of a round."""
_FOREVER = 10**6
"""Steps or passes that no measurement reaches."""
_PX = 8
"""Side in pixels of the views that made-up rows answer: small, since answering them is no part of a step."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What all students learn from while they are timed."""

    shards: index.Shards
    """The real images, copies of which are trained on."""
    teacher: schema.Teacher
    """Which teacher the rows claim to be of."""
    policy: view_policy.Policy
    """Policy of the training views."""
    rows: cache_config.CacheConfig
    """What a row holds."""


def process_count(config: train_config.TrainConfig) -> int:
    """Training processes that share a batch; on a CPU they would share its cores, and one is timed in their place."""
    return config.launcher.processes if config.launcher and torch.cuda.is_available() else 1


def weights_bytes(student: student_spec.Student, num_classes: int) -> int:
    """Bytes of a student's weights; the network is built without memory for them."""
    with torch.device("meta"):
        network = student_model.create_model(student, num_classes)
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def measure_steps(
    folder: Path, source: TrainingData, student: student_spec.Student, seconds: float
) -> measure.Throughput:
    """Views a second of one training process; where a whole batch would take too long, of smaller ones.

    Args:
        folder: a place to work in.
        source: images, policy and what a row holds.
        student: whose steps are timed; its batch must fit the policy.
        seconds: about how long all rounds together may take.
    """
    shared = process_count(student.config)
    lanes = student.config.lanes // shared
    views = lanes * batch_shares.views_per_mix_group(source.policy)
    max_size = student.config.batch_size // shared // views
    steps = _Steps(folder, source, student, lanes)
    with measure.within_memory(f"configs/student/{student.spec.model}.yaml"):
        # Loader processes take seconds to start: sizes are tried without them.
        size = measure.round_size(lambda size: steps.time_round(size, 0), max_size, seconds)
        workers = student.config.workers
        for _ in range(STEPS):
            # As many rounds as loaders hold ready at the start, and more.
            steps.time_round(size, workers)
        rounds = measure.time_rounds(lambda: steps.time_round(size, workers), seconds)
    steps.close()
    return measure.throughput(STEPS * size * views, rounds)


class _Steps:
    """A student that takes steps with batches of any size."""

    def __init__(self, folder: Path, source: TrainingData, student: student_spec.Student, lanes: int) -> None:
        self._folder, self._source, self._student, self._lanes = folder, source, student, lanes
        self._trainer = trainer.Trainer(
            student,
            num_classes=source.teacher.num_classes,
            # A warm-up without end: at the full rate, made-up rows could drive weights to infinity, which ends a run.
            length=schedule.Schedule(STEPS, 2 * _FOREVER, _FOREVER),
            world=process_group.single_process(),
            tail=self._rows(1).tail,
        )
        self._step = 0
        self._open: tuple[int, int] | None = None
        self._stream: Iterator[batching.Batch] = iter(())

    def time_round(self, size: int, workers: int) -> float:
        """Take a round of steps with batches of `size` mix groups a lane.

        Returns:
            Its seconds, without those of what prepares it: shards, rows, and the start of loader processes.
        """
        if self._open != (size, workers):
            self._begin(size, workers)
        began = time.perf_counter()
        for _ in range(STEPS):
            self._trainer.train_step(next(self._stream), self._step)
            self._step += 1
        if self._trainer.device.type == "cuda":
            # The host only hands steps to a GPU: without waiting, a round would take no time.
            torch.cuda.synchronize(self._trainer.device)
        return time.perf_counter() - began

    def close(self) -> None:
        """End the loader processes, if there are any."""
        self._stream = iter(())

    def _parts(self, size: int) -> int:
        """How many parts of a batch there are when each is about as large as it will be."""
        config = self._student.config
        full_size = config.batch_size // process_count(config) // batch_shares.views_per_mix_group(self._source.policy)
        return max(1, round(config.accumulate * size * self._lanes / full_size))

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
        """Shards and cache of a pass, made where they are missing: a tar a lane."""
        folder = self._folder / f"{self._lanes}-{size}"
        shards, cache = folder / "shards", folder / "train.zarr"
        if not cache.exists():
            # As many images as a pass of these steps takes, and no more: writing them is no part of what is timed.
            images = 1 if self._source.policy.mix is None else 2
            sample = sample_shards.write_copies(
                shards, self._source.shards, tars=self._lanes, rows=STEPS * size * images
            )
            _answer(cache, sample, self._source)
        return row_source.CachedRows(shards, cache, aug_seeds=self._source.policy.repeats)


def _answer(cache: Path, shards: index.Shards, source: TrainingData) -> None:
    """A store for one pass, whose rows a network of one layer gives: what a row says takes no time."""
    repeats = source.policy.repeats
    teacher = source.teacher.model_copy(update={"size": _PX, "precision": "float32"})
    job = run_units.create_job(
        shards,
        "train",
        teacher,
        source.policy,
        aug_seeds=repeats,
        settings=source.rows.model_copy(update={"seeds_per_unit": repeats, "rows_per_tar": None}),
        scratch=cache.parent / "units",
        batch_size=64 * repeats,
        device="cpu",
    )
    job, noise_basis = teacher_speed.with_noise_basis(job, source.rows, cache.parent)
    seeding.seed_torch("estimate")
    # Through the code that fills a real cache, so that shapes, dtypes and compression are those of a run.
    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, teacher.num_classes)
    )
    layer = predictor.Predictor(network.eval(), teacher, torch.device("cpu"))
    with ThreadPoolExecutor(teacher_network.available_cpus()) as pool:
        units = [
            (unit_lookup.finished_folder(job, item), unit_computation.compute(job, item, layer, pool))
            for item in run_units.planned_units(job)
        ]
    store_writer.assemble(cache, job.recipe, job.extent, units, noise_basis)
