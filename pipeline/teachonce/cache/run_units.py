"""Run the units of a store: what its job is, which of them are finished, and what becomes of the others."""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from teachonce.cache import cache_config, executors, unit_code, unit_lookup, unit_plan
from teachonce.core import config, errors, locks, progress, terminal
from teachonce.format import layout, schema
from teachonce.shards import index
from teachonce.store import compatibility
from teachonce.teacher import teacher_network
from teachonce.views import view_policy

_MAX_LISTED = 10
"""Failed units that a message names."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """Finished and failed units of a store after a run."""

    units: tuple[tuple[Path, schema.UnitRecord], ...]
    """Folder and record of each finished unit."""
    failed: tuple[str, ...]
    """A line for each unit that failed."""
    computed: int
    """How many of the finished ones this run computed."""

    @property
    def views(self) -> int:
        """Count of views of the finished units."""
        return sum(record.views for _, record in self.units)

    @property
    def correct(self) -> int:
        """Count of views whose likeliest class is the label."""
        return sum(record.correct for _, record in self.units)

    @property
    def labelled(self) -> int:
        """Count of views whose image has a label."""
        return sum(record.views - record.unlabelled for _, record in self.units)


def create_job(
    shards: index.Shards,
    split: str,
    teacher: schema.Teacher,
    views: view_policy.Policy,
    *,
    aug_seeds: int,
    settings: cache_config.CacheConfig,
    scratch: Path,
    batch_size: int,
    device: str,
    compiled: bool = False,
) -> unit_lookup.Job:
    """What the units of one store have in common: checked as a whole here, before any of them is computed.

    Args:
        shards: the images.
        split: `train` or `val`.
        teacher: identity of the teacher; its classes must be those of the shards.
        views: policy of the views.
        aug_seeds: views of each image, a multiple of the settings' `seeds_per_unit`.
        settings: what a row holds, and the size of a unit.
        scratch: folder of finished units.
        batch_size: views of a forward pass.
        device: type of the device that will answer, `cpu` or `cuda`.
        compiled: whether the network will be compiled.

    Raises:
        ConfigError: the settings do not fit the data or each other.
    """
    where = "the cache's settings"
    classes = len(shards.index.classes)
    if teacher.num_classes != classes or teacher.classes_sha256 != schema.classes_sha256(shards.index.classes):
        raise errors.ConfigError.for_value(
            where,
            "teacher.classes",
            f"the {classes} classes of the shards",
            f"{teacher.num_classes} others",
            "Train or choose the teacher for these shards: dvc repro teacher",
        )
    extent = {
        "tars": [tar.model_dump(mode="json") for tar in compatibility.extent_tars(shards, split)],
        "aug_seeds": aug_seeds,
        "seeds_per_unit": settings.seeds_per_unit,
        "rows_per_tar": settings.rows_per_tar or shards.index.rows_per_tar,
    }
    recipe = {
        "teacher": teacher.model_dump(mode="json"),
        "policy": views.model_dump(mode="json"),
        "k": settings.k,
        "tail": "none" if settings.k == "all" else "flat",
    }
    row_recipe, row_extent = config.parse(recipe, schema.Recipe, where), config.parse(extent, schema.Extent, where)
    layout.require_bounded(layout.array_specs(row_recipe, row_extent.rows_per_tar), row_extent.seeds_per_unit, where)
    return unit_lookup.Job(
        recipe=row_recipe,
        extent=row_extent,
        shards=shards,
        entries=shards.index.of_split(split),
        scratch=scratch,
        batch_size=batch_size,
        device=device,
        code=unit_code.closure_digest(),
        compiled=compiled,
    )


def planned_units(job: unit_lookup.Job) -> tuple[unit_plan.Unit, ...]:
    """All units of a store, group of aug seeds by group; within a group in the order of the tars."""
    return unit_plan.enumerate_units(len(job.extent.tars), job.extent.aug_seeds, job.extent.seeds_per_unit)


def folder_names(job: unit_lookup.Job) -> tuple[str, ...]:
    """Names of the folders of a store's units in the scratch folder, finished or not, as `planned_units`."""
    return tuple(unit_lookup.finished_folder(job, unit).name for unit in planned_units(job))


def compute_missing(job: unit_lookup.Job, executor: executors.Executor, label: str) -> RunResult:
    """Compute what is missing of a store's units.

    Killed at any moment and run again, it repeats at most the units it was in.

    Args:
        job: from `create_job`.
        executor: runs the units that are missing.
        label: name on the progress bar.

    Raises:
        DiskError: there is no room for units.
    """
    planned = planned_units(job)
    total = sum(job.extent.tars[unit.tar].nsamples * len(unit.aug_seeds) for unit in planned)
    records: dict[unit_plan.Unit, schema.UnitRecord] = {}
    failed: list[str] = []
    computed = 0
    # One run at a time in a scratch folder: two would look up the same units, find them missing, and compute them
    # twice.
    with locks.hold_folder(job.scratch), progress.bar(range(total), label=label, total=total, unit="view") as bar:
        for unit, record in _find_current(job, planned):
            records[unit] = record
            bar.update(record.views)
        for result in executor.run(job, [unit for unit in planned if unit not in records]):
            # A full disk fails every unit that follows; bad data fails its unit alone, and the others go on.
            if isinstance(result.error, errors.DiskError):
                # Every other unit would fail like it.
                raise result.error
            if result.record is None:
                failed.append(f"{_describe(job, result.unit)}: {result.error}")
                bar.set_postfix(failed=len(failed))
                continue
            records[result.unit] = result.record
            computed += result.computed
            bar.update(result.record.views)
    return RunResult(
        units=tuple((unit_lookup.finished_folder(job, unit), record) for unit, record in records.items()),
        failed=tuple(failed),
        computed=computed,
    )


def _find_current(
    job: unit_lookup.Job, units: Sequence[unit_plan.Unit]
) -> Iterator[tuple[unit_plan.Unit, schema.UnitRecord]]:
    """Units that need no teacher: finished by these very libraries, and undamaged."""
    # Every object of every unit is hashed: in threads, since hashing releases the interpreter's lock.
    with ThreadPoolExecutor(teacher_network.available_cpus()) as pool:
        for unit, record in zip(units, pool.map(functools.partial(_read_or_error, job), units), strict=True):
            if isinstance(record, errors.CacheError):
                # Removed in the unit's turn only, in which no worker of an earlier driver writes it anew. And by this
                # process, whose warning is read; a worker's log may be on another machine.
                with unit_lookup.exclusive_access(job, unit):
                    record = unit_lookup.find_finished(job, unit)  # noqa: PLW2901 - of the same unit
            if record and unit_lookup.is_current(record):
                yield unit, record


def _read_or_error(job: unit_lookup.Job, unit: unit_plan.Unit) -> schema.UnitRecord | errors.CacheError | None:
    try:
        return unit_lookup.read_finished(job, unit)
    except errors.CacheError as error:
        return error


def _describe(job: unit_lookup.Job, unit: unit_plan.Unit) -> str:
    return f"{job.extent.tars[unit.tar].url}, aug seeds {unit.aug_seeds[0]}…{unit.aug_seeds[-1]}"


def refuse_failed(lines: Sequence[str]) -> None:
    """End here if units failed, with a line for each.

    Raises:
        UnitsError: there are lines.
    """
    if lines:
        more = [f"and {len(lines) - _MAX_LISTED} more"] if len(lines) > _MAX_LISTED else []
        listed = "".join(f"\n  {terminal.printable(line)}" for line in [*lines[:_MAX_LISTED], *more])
        count = f"{len(lines)} units" if len(lines) > 1 else "1 unit"
        what = f"{count} failed; the others are kept, and the same command does only these:{listed}"
        raise errors.UnitsError("", what)
