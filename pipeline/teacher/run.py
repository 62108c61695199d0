"""Run the units of a store and assemble them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.base import config as base_config
from pipeline.base import errors, files, hashing, progress, record
from pipeline.cache import config, identity, plan, schema, write
from pipeline.shards import index
from pipeline.teacher import model, predict, unit
from pipeline.views import policy


@dataclass(frozen=True, slots=True)
class Done:
    """What a run made of its units."""

    computed: int
    """Units forwarded by this run."""
    reused: int
    """Units found finished."""
    views: int
    """Views of the whole store."""
    correct: int
    """Views whose likeliest class is the label."""


def job(
    shards: index.Shards, split: str, teacher: schema.Teacher, views: policy.Policy,
    *, aug_seeds: int, settings: config.CacheConfig, scratch: Path, batch_size: int,
) -> unit.Job:  # fmt: skip
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

    Raises:
        ConfigError: the settings do not fit the data or each other.
    """
    where = "the cache's settings"
    classes = len(shards.index.classes)
    if teacher.num_classes != classes or teacher.classes_sha256 != schema.classes_sha256(shards.index.classes):
        raise errors.ConfigError(
            errors.refusal(
                where, "teacher.classes", f"the {classes} classes of the shards", f"{teacher.num_classes} others",
                "Train or choose the teacher for these shards: dvc repro teacher",
            )
        )  # fmt: skip
    extent = {
        "tars": [tar.model_dump(mode="json") for tar in identity.extent_tars(shards, split)],
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
    return unit.Job(
        recipe=base_config.parse(recipe, schema.Recipe, where),
        extent=base_config.parse(extent, schema.Extent, where),
        shards=shards,
        entries=shards.index.of_split(split),
        scratch=scratch,
        batch_size=batch_size,
        device=model.device().type,
        code=hashing.package_digest(unit.CODE),
    )


def store(work: unit.Job, teacher_folder: Path, out: Path, label: str) -> Done:
    """Compute what is missing of a store and assemble it.

    Killed at any moment and run again, it repeats at most the unit it was in.

    Args:
        work: from `job`.
        teacher_folder: weights; loaded only if a unit must be computed.
        out: the store.
        label: name on the progress bar.
    """
    units = plan.units(len(work.extent.tars), work.extent.aug_seeds, work.extent.seeds_per_unit)
    runner = _Runner(work, teacher_folder)
    made: list[tuple[Path, schema.Unit]] = []
    total = sum(work.extent.tars[item.tar].nsamples * len(item.aug_seeds) for item in units)
    with files.lock(work.scratch), progress.bar(range(total), label=label, total=total, unit="view") as bar:
        for item in units:
            done = runner.unit(item)
            made.append((unit.folder(work, item), done))
            bar.update(done.views)
        write.store(out, work.recipe, work.extent, made)
    return Done(
        computed=runner.computed,
        reused=len(units) - runner.computed,
        views=sum(done.views for _, done in made),
        correct=sum(done.correct for _, done in made),
    )


class _Runner:
    """Computes units in this process; the teacher is loaded at the first one that needs it."""

    def __init__(self, work: unit.Job, teacher_folder: Path) -> None:
        self.computed = 0
        self._work = work
        self._folder = teacher_folder
        self._teacher: predict.Predictor | None = None
        self._pool = ThreadPoolExecutor(model.cpus())

    def unit(self, item: plan.Unit) -> schema.Unit:
        """The unit's record, from the scratch folder or by computing it."""
        known = unit.finished(self._work, item)
        if known and (known.versions == record.versions() or unit.replays(self._work, item, known, self._predictor())):
            return known
        self.computed += 1
        return unit.compute(self._work, item, self._predictor(), self._pool)

    def _predictor(self) -> predict.Predictor:
        if self._teacher is None:
            device = model.device()
            torch.backends.cuda.matmul.allow_tf32 = False
            self._teacher = predict.Predictor(model.load(self._folder, device), self._work.recipe.teacher, device)
        return self._teacher
