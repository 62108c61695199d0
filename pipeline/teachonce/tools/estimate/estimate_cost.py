"""Measure what params.yaml asks for, and price it."""

import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from teachonce.cache import run_units
from teachonce.core import errors, progress
from teachonce.format import schema
from teachonce.shards import index
from teachonce.student import schedule
from teachonce.teacher import teacher_network
from teachonce.tools.estimate import measure, price, priced_settings, student_speed, teacher_speed

_KS = (10, 100)
"""Of the forms of row that are set beside the configured one."""
_CPUS = Path("/proc/cpuinfo")


def measure_and_price(ask: priced_settings.EstimateRequest, where: str | Path, seconds: float) -> price.Estimate:
    """Measure the teacher and each kind of student on this machine, and price a whole run.

    Args:
        ask: what to price.
        where: folder of shards, or its URL.
        seconds: to time each piece for, about.

    Raises:
        ConfigError: a value is refused, or a batch does not fit the device.
        DataError: there are no shards, or no image in them.
    """
    if not seconds > 0:
        raise errors.ConfigError.for_value("estimate", "--seconds", "above 0", seconds, "Raise it")
    asked, real = priced_settings.read(ask), index.read(where)
    # What is measured lies elsewhere than the base that it names.
    os.environ.pop(index.BASE, None)
    with tempfile.TemporaryDirectory(prefix="teachonce-") as place:
        return _measured(asked, real, ask.images, place=Path(place), seconds=seconds)


def _measured(
    asked: priced_settings.EstimateConfigs, real: index.Shards, images: int | None, *, place: Path, seconds: float
) -> price.Estimate:
    folder = place / "teacher"
    known = teacher_speed.save_untrained(folder, asked.teacher, real.index.classes)
    recipe = _recipe(asked, real, known, place)
    groups = priced_settings.group_equal_students(asked)
    lengths = [priced_settings.student_schedule(asked, names[0], real, images) for names in groups]
    count = real.index.nsamples("train") if images is None else images
    with progress.bar(range(2 + len(groups)), label="estimate", total=2 + len(groups), unit="piece") as bar:
        staged = teacher_speed.time_cache_stage(
            folder,
            real,
            known,
            asked.views.policy,
            settings=asked.cache,
            batch_size=asked.teacher.batch_size,
            seconds=seconds,
        )
        bar.update()
        forward = teacher_speed.time_forward(folder, known, asked.teacher.batch_size, seconds)
        bar.update()
        work = []
        for number, (names, length) in enumerate(zip(groups, lengths, strict=True)):
            source = student_speed.TrainingData(real, known, asked.views.policy, asked.cache)
            student = asked.students[names[0]]
            found = student_speed.measure_steps(place / f"student-{number}", source, student, seconds)
            weights = student_speed.weights_bytes(student, known.num_classes)
            work.append(_work(asked, names, found, length, count, weights_bytes=weights))
            bar.update()
    data = price.Workload(count, real.index.nsamples("val"), asked.views.aug_seeds)
    return price.estimate(
        data,
        recipe,
        staged=staged,
        forward=forward,
        work=work,
        device=_device(),
        here=real.index.nsamples("train"),
        tars=_tars(real, images),
        ks=_KS,
        notes=_notes(asked, real, images, (staged, forward), work),
    )


def _recipe(
    asked: priced_settings.EstimateConfigs, real: index.Shards, known: schema.Teacher, place: Path
) -> schema.Recipe:
    """What a row of the training store will mean, refused where the cache stage would refuse it."""
    work = run_units.create_job(
        real,
        "train",
        known,
        asked.views.policy,
        aug_seeds=asked.views.aug_seeds,
        settings=asked.cache,
        scratch=place,
        batch_size=asked.teacher.batch_size,
        device=teacher_network.default_device().type,
    )
    return teacher_speed.with_noise_basis(work, asked.cache, place)[0].recipe


def _work(
    asked: priced_settings.EstimateConfigs,
    names: tuple[str, ...],
    found: measure.Throughput,
    length: schedule.Schedule,
    images: int,
    *,
    weights_bytes: int,
) -> price.StudentWork:
    student, repeats = asked.students[names[0]], asked.views.policy.repeats
    return price.StudentWork(
        names=names,
        distils=student.spec.kind != "none",
        steps=length.total,
        batch=student.config.batch_size,
        views=round(images * repeats * length.total / length.steps_a_pass),
        seeds=length.passes * repeats,
        processes=student_speed.process_count(student.config),
        rate=found,
        weights_bytes=weights_bytes,
    )


def _tars(real: index.Shards, images: int | None) -> int:
    train = len(real.index.of_split("train")) if images is None else -(-images // real.index.rows_per_tar)
    return train + len(real.index.of_split("val"))


def _notes(
    asked: priced_settings.EstimateConfigs,
    real: index.Shards,
    images: int | None,
    rates: Sequence[measure.Throughput],
    work: Sequence[price.StudentWork],
) -> tuple[str, ...]:
    here = real.index.nsamples("train")
    found = []
    if images is not None:
        found.append(f"{images:,} training images are priced as if they were like the {here:,} here.")
    if min(rate.views for rate in rates) < (most := asked.teacher.batch_size):
        found.append(f"The teacher: timed with batches of fewer views than {most:,}, which want more --seconds.")
    for one in work:
        batch = one.rate.views // student_speed.STEPS * one.processes
        name = one.names[0]
        if batch < one.batch:
            found.append(f"{name}: timed with batches of {batch:,} views; those of {one.batch:,} want more --seconds.")
        launcher = asked.students[name].config.launcher
        if launcher and one.processes > 1:
            found.append(f"{name}: {one.processes} processes are taken to be each as fast as one alone.")
        elif launcher:
            found.append(f"{name}: timed in one process, on all cores, in place of {launcher.processes}.")
    return tuple(found)


def _device() -> str:
    lines = _CPUS.read_text(encoding="utf-8").splitlines() if _CPUS.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    cpu = f"{teacher_network.available_cpus()} cores of {name}"
    if not torch.cuda.is_available():
        return cpu
    return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}, {cpu}"
