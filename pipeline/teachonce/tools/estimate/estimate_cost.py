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
"""Kept classes of the rows whose size is set beside that of the configured one."""
_CPUS = Path("/proc/cpuinfo")


def measure_and_price(
    request: priced_settings.EstimateRequest, shards_location: str | Path, seconds: float
) -> price.Estimate:
    """Measure the teacher and each kind of student on this machine, and price a whole run.

    Args:
        request: what to price.
        shards_location: folder of shards, or its URL.
        seconds: about how long each piece is timed.

    Raises:
        ConfigError: a value is refused, or a batch does not fit the device.
        DataError: there are no shards, or no image in them.
    """
    if not seconds > 0:
        raise errors.ConfigError.for_value("estimate", "--seconds", "above 0", seconds, "Raise it")
    configs, shards = priced_settings.read(request), index.read(shards_location)
    # A base in the environment would stand for the folder of any shards that are read, also of those that are written
    # here to measure with.
    os.environ.pop(index.BASE, None)
    with tempfile.TemporaryDirectory(prefix="teachonce-") as folder:
        return _measured(configs, shards, request.images, folder=Path(folder), seconds=seconds)


def _measured(
    configs: priced_settings.EstimateConfigs, shards: index.Shards, images: int | None, *, folder: Path, seconds: float
) -> price.Estimate:
    teacher_folder = folder / "teacher"
    teacher = teacher_speed.save_untrained(teacher_folder, configs.teacher, shards.index.classes)
    # What a row means and how long runs are comes before the first measurement: what is refused there costs no waiting.
    recipe = _recipe(configs, shards, teacher, folder)
    # Students that differ in nothing that takes time are timed once: a sweep over seeds costs one measurement.
    groups = priced_settings.group_equal_students(configs)
    lengths = [priced_settings.student_schedule(configs, names[0], shards, images) for names in groups]
    train_images = shards.index.nsamples("train") if images is None else images
    with progress.bar(range(2 + len(groups)), label="estimate", total=2 + len(groups), unit="piece") as bar:
        cache_rate = teacher_speed.time_cache_stage(
            teacher_folder,
            shards,
            teacher,
            configs.views.policy,
            settings=configs.cache,
            batch_size=configs.teacher.batch_size,
            seconds=seconds,
        )
        bar.update()
        forward_rate = teacher_speed.time_forward(teacher_folder, teacher, configs.teacher.batch_size, seconds)
        bar.update()
        work = []
        for number, (names, length) in enumerate(zip(groups, lengths, strict=True)):
            source = student_speed.TrainingData(shards, teacher, configs.views.policy, configs.cache)
            student = configs.students[names[0]]
            rate = student_speed.measure_steps(folder / f"student-{number}", source, student, seconds)
            weights = student_speed.weights_bytes(student, teacher.num_classes)
            work.append(_work(configs, names, rate, length, train_images, weights_bytes=weights))
            bar.update()
    data = price.Workload(train_images, shards.index.nsamples("val"), configs.views.aug_seeds)
    return price.estimate(
        data,
        recipe,
        cache_rate=cache_rate,
        forward_rate=forward_rate,
        work=work,
        device=_device(),
        here=shards.index.nsamples("train"),
        tars=_tars(shards, images),
        ks=_KS,
        notes=_notes(configs, shards, images, (cache_rate, forward_rate), work),
    )


def _recipe(
    configs: priced_settings.EstimateConfigs, shards: index.Shards, teacher: schema.Teacher, folder: Path
) -> schema.Recipe:
    """What a row of the training store will mean, refused where the cache stage would refuse it."""
    job = run_units.create_job(
        shards,
        "train",
        teacher,
        configs.views.policy,
        aug_seeds=configs.views.aug_seeds,
        settings=configs.cache,
        scratch=folder,
        batch_size=configs.teacher.batch_size,
        device=teacher_network.default_device().type,
    )
    return teacher_speed.with_noise_basis(job, configs.cache, folder)[0].recipe


def _work(
    configs: priced_settings.EstimateConfigs,
    names: tuple[str, ...],
    rate: measure.Throughput,
    length: schedule.Schedule,
    images: int,
    *,
    weights_bytes: int,
) -> price.StudentWork:
    student, repeats = configs.students[names[0]], configs.views.policy.repeats
    return price.StudentWork(
        names=names,
        distils=student.spec.kind != "none",
        steps=length.total,
        batch=student.config.batch_size,
        views=round(images * repeats * length.total / length.steps_a_pass),
        seeds=length.passes * repeats,
        processes=student_speed.process_count(student.config),
        rate=rate,
        weights_bytes=weights_bytes,
    )


def _tars(shards: index.Shards, images: int | None) -> int:
    train = len(shards.index.of_split("train")) if images is None else -(-images // shards.index.rows_per_tar)
    return train + len(shards.index.of_split("val"))


def _notes(
    configs: priced_settings.EstimateConfigs,
    shards: index.Shards,
    images: int | None,
    rates: Sequence[measure.Throughput],
    work: Sequence[price.StudentWork],
) -> tuple[str, ...]:
    present_images = shards.index.nsamples("train")
    notes = []
    if images is not None:
        notes.append(f"{images:,} training images are priced as if they were like the {present_images:,} here.")
    if min(rate.views for rate in rates) < (most := configs.teacher.batch_size):
        notes.append(f"The teacher: timed with batches of fewer views than {most:,}, which want more --seconds.")
    for student_work in work:
        batch = student_work.rate.views // student_speed.STEPS * student_work.processes
        name = student_work.names[0]
        if batch < student_work.batch:
            remedy = f"those of {student_work.batch:,} want more --seconds"
            notes.append(f"{name}: timed with batches of {batch:,} views; {remedy}.")
        launcher = configs.students[name].config.launcher
        if launcher and student_work.processes > 1:
            notes.append(f"{name}: {student_work.processes} processes are taken to be each as fast as one alone.")
        elif launcher:
            notes.append(f"{name}: timed in one process, on all cores, in place of {launcher.processes}.")
    return tuple(notes)


def _device() -> str:
    lines = _CPUS.read_text(encoding="utf-8").splitlines() if _CPUS.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    cpu = f"{teacher_network.available_cpus()} cores of {name}"
    if not torch.cuda.is_available():
        return cpu
    return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}, {cpu}"
