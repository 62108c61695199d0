"""How fast a student learns: steps as `train` takes them, loader included, from a cache of made-up rows."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from teachonce.cache import cache_config, run_units, store_writer, unit_computation, unit_lookup
from teachonce.core import seeding
from teachonce.format import row_targets, schema
from teachonce.shards import index
from teachonce.store import store_reader
from teachonce.student import (
    batch_shares,
    batching,
    loader,
    process_group,
    schedule,
    student_config,
    student_model,
    trainer,
    training_loop,
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


def process_count(settings: student_config.StudentConfig) -> int:
    """Training processes that share a batch; on a CPU they would share its cores, and one is timed in their place."""
    return settings.launcher.processes if settings.launcher and torch.cuda.is_available() else 1


def weights_bytes(settings: student_config.StudentConfig, student: student_config.Student, num_classes: int) -> int:
    """Of a student's network, which is not made."""
    with torch.device("meta"):
        network = student_model.build(settings, student, num_classes)
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def time_steps(
    folder: Path,
    source: TrainingData,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    seconds: float,
) -> measure.Throughput:
    """Views a second of one training process; where a whole batch would take too long, of smaller ones.

    Args:
        folder: a place to work in.
        source: images and rows.
        settings: the recipe; its batch fits the policy.
        student: kind of distillation.
        seconds: the time there is.
    """
    shared = process_count(settings)
    lanes = settings.lanes // shared
    views = lanes * batch_shares.views_an_atom(source.policy)
    most = settings.batch_size // shared // views
    made = _Steps(folder, source, settings, student, lanes)
    with measure.within_memory(f"configs/student/{student.model}.yaml"):
        # Loader processes take seconds to start: sizes are tried without them.
        size = measure.round_size(lambda size: made.take(size, 0), most, seconds)
        for _ in range(STEPS):
            # As many rounds as loaders hold ready at the start, and more.
            made.take(size, settings.workers)
        found = measure.time_rounds(lambda: made.take(size, settings.workers), seconds)
    made.close()
    return measure.throughput(STEPS * size * views, found)


class _Steps:
    """A student that takes steps with batches of any size."""

    def __init__(
        self,
        folder: Path,
        source: TrainingData,
        settings: student_config.StudentConfig,
        student: student_config.Student,
        lanes: int,
    ) -> None:
        self._folder, self._source, self._lanes = folder, source, lanes
        self._settings, self._student = settings, student
        opened = store_reader.open(self._made(1)[1])
        self._who = trainer.make(
            settings,
            student,
            num_classes=source.known.num_classes,
            length=schedule.Schedule(STEPS, 2 * _FOREVER, _FOREVER),
            team=process_group.alone(),
            tail=row_targets.tail_decoder(opened.recipe, opened.basis),
        )
        self._number = 0
        self._open: tuple[int, int] | None = None
        self._stream: Iterator[batching.Batch] = iter(())

    def take(self, size: int, workers: int) -> float:
        """A round with batches of `size` atoms a lane; its seconds, without what prepares it."""
        if self._open != (size, workers):
            self._begin(size, workers)
        settings = self._settings.model_copy(update={"accumulate": self._parts(size)})
        began = time.perf_counter()
        for _ in range(STEPS):
            training_loop.step(self._who, next(self._stream), settings, self._student, self._number)
            self._number += 1
        if self._who.device.type == "cuda":
            # The host is ahead of it.
            torch.cuda.synchronize(self._who.device)
        return time.perf_counter() - began

    def close(self) -> None:
        """End the loaders."""
        self._stream = iter(())

    def _parts(self, size: int) -> int:
        """How many parts of a batch there are when each is about as large as it will be."""
        whole = (
            self._settings.batch_size
            // process_count(self._settings)
            // batch_shares.views_an_atom(self._source.policy)
        )
        return max(1, round(self._settings.accumulate * size * self._lanes / whole))

    def _begin(self, size: int, workers: int) -> None:
        self.close()
        shards, cache = self._made(size)
        plan = loader.Plan(
            shards=shards,
            cache=cache,
            size=self._settings.size,
            batch_size=size * self._lanes * batch_shares.views_an_atom(self._source.policy),
            lanes=self._lanes,
            buffer=self._settings.buffer,
            passes=_FOREVER,
            aug_seeds=self._source.policy.repeats,
            seed=0,
            accept=(),
        )
        self._stream = loader.batches(plan, workers=workers)
        self._open = size, workers

    def _made(self, size: int) -> tuple[Path, Path]:
        """Shards and cache of a pass: a tar a lane."""
        place = self._folder / f"{self._lanes}-{size}"
        shards, cache = place / "shards", place / "train.zarr"
        if not cache.exists():
            images = 1 if self._source.policy.mix is None else 2
            made = sample_shards.write_copies(shards, self._source.real, tars=self._lanes, rows=STEPS * size * images)
            _answer(cache, made, self._source)
        return shards, cache


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
