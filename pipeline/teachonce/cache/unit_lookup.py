"""Units that are finished: where one lies, and whether it may be used.

A finished unit lies under a name that hashes what determines its bytes. Resume after a crash, growth by seeds or tars
and a second run are one thing: look up, compute what is missing.
"""

import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teachonce.cache import (
    finished_units,
    unit_plan,
)
from teachonce.core import errors, files, hashing, locks, run_record
from teachonce.format import codec, layout, schema
from teachonce.shards import index, sample_reader
from teachonce.store import compatibility, replay
from teachonce.teacher import predictor

_LOG = logging.getLogger(__name__)
_TOLERANCE = 0.05
"""Logits recomputed in another batch, or by another library version, may differ by this much."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that is the same for all units of a run."""

    recipe: schema.Recipe
    """What a row means."""
    extent: schema.Extent
    """Which rows there will be."""
    shards: index.Shards
    """Where the tars are."""
    entries: tuple[index.Shard, ...]
    """The tars of the split, in the extent's order."""
    scratch: Path
    """Folder of finished units."""
    batch_size: int
    """Views of a forward pass."""
    device: str
    """Device type."""
    code: str
    """Digest of the code that decides bytes (`unit_code.closure_digest`)."""
    basis: Path | None = None
    """File of the basis of a transform tail."""
    fit_tars: int = 0
    """Tars whose units of group 0 the basis was fitted on: their whole logits lie in the scratch folder."""
    compiled: bool = False
    """Whether the network is compiled, for batches of `batch_size`: it rounds otherwise."""


def with_whole_rows(job: Job) -> Job:
    """The same job with whole rows."""
    recipe = job.recipe.model_copy(update={"k": "all", "tail": "none"})
    return replace(job, recipe=recipe, basis=None, fit_tars=0)


def finished_folder(job: Job, unit: unit_plan.Unit) -> Path:
    """Where the finished unit lies: a name that changes with anything that changes its bytes."""
    name = hashing.json_digest(
        {
            "format": job.recipe.format,
            "code": job.code,
            "recipe": job.recipe.model_dump(mode="json"),
            "tar": job.extent.tars[unit.tar].model_dump(mode="json", exclude={"url"}),
            "aug_seeds": unit.aug_seeds,
            "rows_per_tar": job.extent.rows_per_tar,
            "device": job.device,
            # Left out where it is not: units made before it could be are still found.
            **({"compiled": True} if job.compiled else {}),
        }
    )
    return job.scratch / name


def exclusive_access(job: Job, unit: unit_plan.Unit) -> AbstractContextManager[None]:
    """While no other process, on any machine, is at the unit: where a driver died, its last ones may still be made."""
    return locks.hold_name(job.scratch / "turns", finished_folder(job, unit).name)


def find_finished(job: Job, unit: unit_plan.Unit) -> schema.UnitRecord | None:
    """The record of a unit that was finished before, placed where this run needs it; None where it must be computed.

    One that is damaged is named and removed. To be called in the unit's turn.
    """
    try:
        return read_finished(job, unit)
    except errors.CacheError as error:
        _LOG.warning("%s", error)
        files.remove(finished_folder(job, unit))
        return None


def read_finished(job: Job, unit: unit_plan.Unit) -> schema.UnitRecord | None:
    """The record that `find_finished` gives, with nothing changed.

    Raises:
        CacheError: the unit is damaged.
    """
    path = finished_folder(job, unit)
    if not os.path.lexists(path):
        return None
    record = finished_units.read(path, _specs(job, unit), len(unit.aug_seeds))
    return record.model_copy(update={"tar": unit.tar, "group": unit.group})


def read_finished_array(
    job: Job, unit: unit_plan.Unit, record: schema.UnitRecord, name: str
) -> npt.NDArray[np.generic]:
    """An array of a finished unit: (aug seeds, rows_per_tar, …), or the one block of an array by tar.

    Raises:
        CacheError: it has changed since.
    """
    return finished_units.read_array(
        finished_folder(job, unit), name, _specs(job, unit)[name], record, len(unit.aug_seeds)
    )


def _specs(job: Job, unit: unit_plan.Unit) -> dict[str, layout.ArraySpec]:
    return layout.unit_specs(layout.array_specs(job.recipe, job.extent.rows_per_tar), unit.group)


def is_current(known: schema.UnitRecord) -> bool:
    """Was it made by the libraries that are installed here?"""
    return known.versions == run_record.library_versions()


def replays_canary(job: Job, unit: unit_plan.Unit, known: schema.UnitRecord, teacher: predictor.Predictor) -> bool:
    """Recompute the canary's pixels and its rows of a finished unit: would this environment have made the same?

    Asked where the libraries differ from those of the record. Pixels must be equal; log-probabilities may differ by
    rounding, since the batch is another one.
    """
    entry, tar = job.entries[unit.tar], job.extent.tars[unit.tar]
    with sample_reader.open_tar(entry, job.shards.path(entry)) as samples:
        views = np.stack(
            [replay.render_view(job.recipe, tar, samples, known.canary.row, aug_seed) for aug_seed in unit.aug_seeds]
        )
    if compatibility.pixels_sha256(views[unit.aug_seeds.index(known.canary.aug_seed)]) != known.canary.sha256:
        return False
    name = "logits" if job.recipe.k == "all" else "logp"
    stored = read_finished_array(job, unit, known, name)[:, known.canary.row]
    answers = codec.pack(teacher.logits(views), job.recipe.k).arrays()[name]
    return np.allclose(stored.astype(np.float64), answers.astype(np.float64), rtol=0, atol=_TOLERANCE)
