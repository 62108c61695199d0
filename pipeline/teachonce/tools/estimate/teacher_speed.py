"""How fast the teacher is: the cache stage as it runs, and the forward pass alone; weights are fresh."""

import functools
import itertools
import time
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import torch
from safetensors.numpy import save

from teachonce.cache import basis_fit, cache_config, executors, run_units, unit_lookup
from teachonce.core import files, hashing
from teachonce.format import basis, schema
from teachonce.shards import index
from teachonce.teacher import predictor, teacher_config, teacher_network
from teachonce.tools.estimate import measure, sample_shards
from teachonce.views import view_policy

_BATCHES = 4
"""Of a unit, at most: rendering runs a batch ahead, which shows with several of them."""
_NO_WEIGHTS = teacher_config.TrainedWeights(
    kind="fit", policy=view_policy.Policy(), epochs=1, batch_size=teacher_config.MIN_BATCH_SIZE, lr=1.0, warmup_epochs=0
)


def save_untrained(folder: Path, settings: teacher_config.TeacherConfig, classes: tuple[str, ...]) -> schema.Teacher:
    """A folder of the teacher with fresh weights: those it will have may not be there yet.

    Raises:
        ConfigError: timm does not know the architecture.
    """
    network = teacher_network.build_network(settings.model_copy(update={"weights": _NO_WEIGHTS}), len(classes))
    return teacher_network.save(folder, network, settings, classes)


def with_noise_basis(
    work: unit_lookup.Job, settings: cache_config.CacheConfig, folder: Path
) -> tuple[unit_lookup.Job, basis.Basis | None]:
    """The job with the transform tail that is configured, on a basis of noise; unchanged where there is none.

    Raises:
        ConfigError: the rank does not fit the classes.
    """
    if settings.k == "all" or not isinstance(settings.tail, cache_config.TransformConfig):
        return work, None
    classes = work.recipe.teacher.num_classes
    noise = np.random.Generator(np.random.Philox(key=hashing.seed64("estimate"))).standard_normal
    # Orthonormal: a reader takes no other.
    components_RC = np.ascontiguousarray(np.linalg.qr(noise((classes, settings.tail.rank), np.float32))[0].T)
    made = basis.Basis(np.zeros(classes, np.float32), np.ones(classes, np.float32), components_RC)
    path = folder / "basis.safetensors"
    files.write_bytes(path, save(made.arrays()))
    return basis_fit.with_transform_tail(
        work, basis_fit.StoredBasis(made, path, None), settings.tail.step, fit_tars=0
    ), made


def time_cache_stage(
    folder: Path,
    real: index.Shards,
    known: schema.Teacher,
    views: view_policy.Policy,
    *,
    settings: cache_config.CacheConfig,
    batch_size: int,
    seconds: float,
) -> measure.Throughput:
    """Views a second of the cache stage on this machine, by whole units: decode, render, forward, pack, write.

    Args:
        folder: of the teacher, in a place to work in.
        real: the images.
        known: the teacher.
        views: which views of them.
        settings: what a row holds, the size of a unit and the processes.
        batch_size: views of a forward pass.
        seconds: the time there is.
    """
    workers = teacher_network.available_cpus() if settings.workers is None else settings.workers
    if settings.workers is None and torch.cuda.is_available():
        workers = torch.cuda.device_count()
    units = max(1, workers)
    numbers = itertools.count()

    @functools.cache
    def work(rows: int) -> unit_lookup.Job:
        place = folder.parent / f"rows-{rows}"
        made = run_units.create_job(
            sample_shards.write_copies(place, real, tars=1, rows=rows),
            "train",
            known,
            views,
            aug_seeds=units * settings.seeds_per_unit,
            settings=settings.model_copy(update={"rows_per_tar": None}),
            scratch=place,
            batch_size=batch_size,
            device=teacher_network.default_device().type,
        )
        return with_noise_basis(made, settings, place)[0]

    def take(size: int) -> float:
        # Elsewhere than before: a finished unit would be found.
        one = replace(work(size * atom), scratch=folder.parent / f"units-{next(numbers)}")
        began = time.perf_counter()
        results = list(executor.run(one, run_units.planned_units(one)))
        run_units.refuse_failed([str(result.error) for result in results if result.record is None])
        return time.perf_counter() - began

    atom = 1 if views.mix is None else 2
    most = -(-_BATCHES * batch_size // (atom * settings.seeds_per_unit))
    with (
        measure.within_memory("teacher"),
        dask.config.set({"scheduler-address": None}),
        executors.open_executor(folder, workers, settings.rendering) as executor,
    ):
        size = measure.round_size(take, most, seconds)
        found = measure.time_rounds(lambda: take(size), seconds)
    return measure.throughput(units * size * atom * settings.seeds_per_unit, found)


def time_forward(folder: Path, known: schema.Teacher, batch_size: int, seconds: float) -> measure.Throughput:
    """Views a second of the bare forward pass in one process, on all of its cores or a GPU: a live teacher's least."""
    device = teacher_network.default_device()
    teacher = predictor.Predictor(teacher_network.load(folder, device), known, device)
    shape = (3, known.size, known.size)
    noise = np.random.Generator(np.random.Philox(key=hashing.seed64("estimate")))
    views_B3HW = noise.integers(0, 256, (batch_size, *shape), np.uint8)

    def take(size: int) -> float:
        began = time.perf_counter()
        teacher.logits(views_B3HW[:size])
        return time.perf_counter() - began

    with measure.within_memory("teacher"):
        size = measure.round_size(take, batch_size, seconds)
        return measure.throughput(size, measure.time_rounds(lambda: take(size), seconds))
