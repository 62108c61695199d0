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
"""Most forward batches of a unit: rendering runs a batch ahead, which shows only with several of them."""
# Trained here, so that no weights are looked for; none of these settings is used, since nothing is trained.
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
    job: unit_lookup.Job, settings: cache_config.CacheConfig, folder: Path
) -> tuple[unit_lookup.Job, basis.Basis | None]:
    """The job with the transform tail that is configured, on a basis of noise; unchanged where there is none.

    Raises:
        ConfigError: the rank does not fit the classes.
    """
    if settings.k == "all" or not isinstance(settings.tail, cache_config.TransformConfig):
        return job, None
    classes = job.recipe.teacher.num_classes
    noise = np.random.Generator(np.random.Philox(key=hashing.seed64("estimate"))).standard_normal
    # Orthonormal: a reader takes no other.
    components_RC = np.ascontiguousarray(np.linalg.qr(noise((classes, settings.tail.rank), np.float32))[0].T)
    noise_basis = basis.Basis(np.zeros(classes, np.float32), np.ones(classes, np.float32), components_RC)
    path = folder / "basis.safetensors"
    files.write_bytes(path, save(noise_basis.arrays()))
    return basis_fit.with_transform_tail(
        job, basis_fit.StoredBasis(noise_basis, path, None), settings.tail.step, fit_tars=0
    ), noise_basis


def time_cache_stage(
    folder: Path,
    shards: index.Shards,
    teacher: schema.Teacher,
    views: view_policy.Policy,
    *,
    settings: cache_config.CacheConfig,
    batch_size: int,
    seconds: float,
) -> measure.Throughput:
    """Views a second of the cache stage on this machine, by whole units: decode, render, forward, pack, write.

    Args:
        folder: the teacher's; its parent is a place to work in.
        shards: the images.
        teacher: the record of the teacher in that folder.
        views: which views of the images are answered.
        settings: what a row holds, the size of a unit, and how many processes share the units.
        batch_size: views of a forward pass.
        seconds: about how long all rounds together may take.
    """
    workers = teacher_network.available_cpus() if settings.workers is None else settings.workers
    if settings.workers is None and torch.cuda.is_available():
        workers = torch.cuda.device_count()
    # A unit for each process: with fewer some would stand idle, and the rate would be that of a smaller machine.
    units = max(1, workers)
    numbers = itertools.count()

    @functools.cache
    def sized_job(rows: int) -> unit_lookup.Job:
        job_folder = folder.parent / f"rows-{rows}"
        job = run_units.create_job(
            sample_shards.write_copies(job_folder, shards, tars=1, rows=rows),
            "train",
            teacher,
            views,
            aug_seeds=units * settings.seeds_per_unit,
            settings=settings.model_copy(update={"rows_per_tar": None}),
            scratch=job_folder,
            batch_size=batch_size,
            device=teacher_network.default_device().type,
        )
        return with_noise_basis(job, settings, job_folder)[0]

    def time_round(size: int) -> float:
        # In a new folder each time: a unit that is finished there would be taken, not computed.
        fresh_job = replace(sized_job(size * mix_group), scratch=folder.parent / f"units-{next(numbers)}")
        began = time.perf_counter()
        results = list(executor.run(fresh_job, run_units.planned_units(fresh_job)))
        run_units.refuse_failed([str(result.error) for result in results if result.record is None])
        return time.perf_counter() - began

    mix_group = 1 if views.mix is None else 2
    max_size = -(-_BATCHES * batch_size // (mix_group * settings.seeds_per_unit))
    with (
        measure.within_memory("teacher"),
        # A cluster that the environment names would be measured in place of this machine.
        dask.config.set({"scheduler-address": None}),
        executors.open_executor(folder, workers, settings.rendering) as executor,
    ):
        size = measure.round_size(time_round, max_size, seconds)
        round_s = measure.time_rounds(lambda: time_round(size), seconds)
    return measure.throughput(units * size * mix_group * settings.seeds_per_unit, round_s)


def time_forward(folder: Path, identity: schema.Teacher, batch_size: int, seconds: float) -> measure.Throughput:
    """Views a second of the bare forward pass in one process, on all of its cores or a GPU: a live teacher's least."""
    device = teacher_network.default_device()
    teacher = predictor.Predictor(teacher_network.load(folder, device), identity, device)
    shape = (3, identity.size, identity.size)
    noise = np.random.Generator(np.random.Philox(key=hashing.seed64("estimate")))
    views_B3HW = noise.integers(0, 256, (batch_size, *shape), np.uint8)

    def time_round(size: int) -> float:
        began = time.perf_counter()
        teacher.logits(views_B3HW[:size])
        return time.perf_counter() - began

    with measure.within_memory("teacher"):
        size = measure.round_size(time_round, batch_size, seconds)
        return measure.throughput(size, measure.time_rounds(lambda: time_round(size), seconds))
