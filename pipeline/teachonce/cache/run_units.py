"""Run the units of a store."""

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

_LISTED = 10  # failed units


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run made of its units."""

    units: tuple[tuple[Path, schema.UnitRecord], ...]
    """Folder and record of each finished unit."""
    failed: tuple[str, ...]
    """A line for each unit that failed."""
    computed: int
    """How many of the finished ones this run computed."""

    @property
    def views(self) -> int:
        """Views of the finished units."""
        return sum(made.views for _, made in self.units)

    @property
    def correct(self) -> int:
        """Views whose likeliest class is the label."""
        return sum(made.correct for _, made in self.units)

    @property
    def labelled(self) -> int:
        """Views whose image has a label."""
        return sum(made.views - made.unlabelled for _, made in self.units)


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
    """What the units of one store have in common.

    Args:
        shards: the data.
        split: train or val.
        teacher: whose answers.
        views: to which views.
        aug_seeds: how many of each image.
        settings: what a row holds, and the size of a unit.
        scratch: where finished units are kept.
        batch_size: views of a forward pass.
        device: type of the device that will answer.
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
    row, rows = config.parse(recipe, schema.Recipe, where), config.parse(extent, schema.Extent, where)
    layout.require_bounded(layout.array_specs(row, rows.rows_per_tar), rows.seeds_per_unit, where)
    return unit_lookup.Job(
        recipe=row,
        extent=rows,
        shards=shards,
        entries=shards.index.of_split(split),
        scratch=scratch,
        batch_size=batch_size,
        device=device,
        code=unit_code.closure_digest(),
        compiled=compiled,
    )


def planned_units(work: unit_lookup.Job) -> tuple[unit_plan.Unit, ...]:
    """The units of a store."""
    return unit_plan.enumerate_units(len(work.extent.tars), work.extent.aug_seeds, work.extent.seeds_per_unit)


def folder_names(work: unit_lookup.Job) -> tuple[str, ...]:
    """Where the units of a store lie in the scratch folder."""
    return tuple(unit_lookup.finished_folder(work, item).name for item in planned_units(work))


def compute_missing(work: unit_lookup.Job, executor: executors.Executor, label: str) -> RunResult:
    """Compute what is missing of a store's units.

    Killed at any moment and run again, it repeats at most the units it was in.

    Args:
        work: from `create_job`.
        executor: where units run.
        label: name on the progress bar.

    Raises:
        DiskError: there is no room for units.
    """
    wanted = planned_units(work)
    total = sum(work.extent.tars[item.tar].nsamples * len(item.aug_seeds) for item in wanted)
    made: dict[unit_plan.Unit, schema.UnitRecord] = {}
    failed: list[str] = []
    computed = 0
    with locks.hold_folder(work.scratch), progress.bar(range(total), label=label, total=total, unit="view") as bar:
        for item, known in _finished(work, wanted):
            made[item] = known
            bar.update(known.views)
        for result in executor.run(work, [item for item in wanted if item not in made]):
            if isinstance(result.error, errors.DiskError):
                # Every other unit would fail like it.
                raise result.error
            if result.made is None:
                failed.append(f"{_name(work, result.item)}: {result.error}")
                bar.set_postfix(failed=len(failed))
                continue
            made[result.item] = result.made
            computed += result.computed
            bar.update(result.made.views)
    return RunResult(
        units=tuple((unit_lookup.finished_folder(work, item), known) for item, known in made.items()),
        failed=tuple(failed),
        computed=computed,
    )


def _finished(
    work: unit_lookup.Job, items: Sequence[unit_plan.Unit]
) -> Iterator[tuple[unit_plan.Unit, schema.UnitRecord]]:
    """Units that need no teacher: finished by these very libraries, and undamaged."""
    # Hashing lets go of the interpreter.
    with ThreadPoolExecutor(teacher_network.available_cpus()) as pool:
        for item, record in zip(items, pool.map(functools.partial(_looked_at, work), items), strict=True):
            if isinstance(record, errors.CacheError):
                # Here, where someone reads it; a worker's log may be on another machine.
                with unit_lookup.exclusive_access(work, item):
                    record = unit_lookup.find_finished(work, item)  # noqa: PLW2901 - of the same unit
            if record and unit_lookup.is_current(record):
                yield item, record


def _looked_at(work: unit_lookup.Job, item: unit_plan.Unit) -> schema.UnitRecord | errors.CacheError | None:
    try:
        return unit_lookup.read_finished(work, item)
    except errors.CacheError as error:
        return error


def _name(work: unit_lookup.Job, item: unit_plan.Unit) -> str:
    return f"{work.extent.tars[item.tar].url}, aug seeds {item.aug_seeds[0]}…{item.aug_seeds[-1]}"


def refuse_failed(lines: Sequence[str]) -> None:
    """End here if units failed, with a line for each.

    Raises:
        UnitsError: there are lines.
    """
    if lines:
        more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
        listed = "".join(f"\n  {terminal.printable(line)}" for line in [*lines[:_LISTED], *more])
        count = f"{len(lines)} units" if len(lines) > 1 else "1 unit"
        what = f"{count} failed; the others are kept, and the same command does only these:{listed}"
        raise errors.UnitsError("", what)
