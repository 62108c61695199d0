"""Finished units: where one lies in the scratch folder, and whether it may be used.

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
"""Nats by which logits recomputed in another batch, or by another library version, may differ."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that is the same for all units of a run."""

    recipe: schema.Recipe
    """Teacher, policy, k and tail, which determine a row."""
    extent: schema.Extent
    """Which rows the store will have: tars and aug seeds."""
    shards: index.Shards
    """The index, and the folder or URL of its tars."""
    entries: tuple[index.Shard, ...]
    """The tars of the split, in the extent's order."""
    scratch: Path
    """Folder of finished units, shared by all processes that compute some."""
    batch_size: int
    """Views of a forward pass, at most."""
    device: str
    """Device type, `cpu` or `cuda`."""
    code: str
    """Digest of the code that decides a unit's bytes (`unit_code.closure_digest`)."""
    basis: Path | None = None
    """File of the basis of a transform tail; None for a flat tail."""
    fit_tars: int = 0
    """Tars whose units of group 0 the basis was fitted on: their whole logits lie in the scratch folder."""
    compiled: bool = False
    """Whether the network is compiled, for batches of `batch_size`: it rounds otherwise."""


def with_whole_rows(job: Job) -> Job:
    """The same job with raw logits for rows, as a basis is fitted on."""
    recipe = job.recipe.model_copy(update={"k": "all", "tail": "none"})
    return replace(job, recipe=recipe, basis=None, fit_tars=0)


def finished_folder(job: Job, unit: unit_plan.Unit) -> Path:
    """Where the finished unit lies: a name that changes with anything that changes its bytes."""
    # By content, never by position or URL: a tar that was moved, or that comes third instead of second after others
    # were added, finds its units again. batch_size is not in it: a row may differ with it in its last bits, no more.
    name = hashing.json_digest(
        {
            "format": job.recipe.format,
            "code": job.code,
            "recipe": job.recipe.model_dump(mode="json"),
            "tar": job.extent.tars[unit.tar].model_dump(mode="json", exclude={"url"}),
            "aug_seeds": unit.aug_seeds,
            "rows_per_tar": job.extent.rows_per_tar,
            "device": job.device,
            # Left out where the network is not compiled, as in names made before there was the setting: those units are
            # still found.
            **({"compiled": True} if job.compiled else {}),
        }
    )
    return job.scratch / name


def exclusive_access(job: Job, unit: unit_plan.Unit) -> AbstractContextManager[None]:
    """A context in which no other process, on any machine, is at the unit.

    A driver's death does not end the workers of a foreign scheduler: its last units may still be computed when the same
    command runs again, and two writers of one folder would tear each other's draft.
    """
    return locks.hold_name(job.scratch / "turns", finished_folder(job, unit).name)


def find_finished(job: Job, unit: unit_plan.Unit) -> schema.UnitRecord | None:
    """The record of a unit that was finished before, placed where this run needs it; None where it must be computed.

    One that is damaged is named in a warning and removed. To be called within `exclusive_access`, since another process
    may be about to read what is removed.
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
    # Position and group are this run's: the unit may have been computed for another extent.
    return record.model_copy(update={"tar": unit.tar, "group": unit.group})


def read_finished_array(
    job: Job, unit: unit_plan.Unit, record: schema.UnitRecord, name: str
) -> npt.NDArray[np.generic]:
    """An array of a finished unit: (aug seeds, rows_per_tar, …), or the one block of an array by tar.

    Raises:
        CacheError: it has changed since its record was read.
    """
    return finished_units.read_array(
        finished_folder(job, unit), name, _specs(job, unit)[name], record, len(unit.aug_seeds)
    )


def _specs(job: Job, unit: unit_plan.Unit) -> dict[str, layout.ArraySpec]:
    return layout.unit_specs(layout.array_specs(job.recipe, job.extent.rows_per_tar), unit.group)


def is_current(record: schema.UnitRecord) -> bool:
    """Whether it was computed with the library versions that are installed here."""
    return record.versions == run_record.library_versions()


def replays_canary(job: Job, unit: unit_plan.Unit, record: schema.UnitRecord, teacher: predictor.Predictor) -> bool:
    """Whether this environment gives the canary of a finished unit the same pixels and, nearly, the same rows.

    Called where the libraries differ from those of the record. Pixels must be equal; log-probabilities may differ by
    rounding, since the batch is another one.

    Args:
        job: what all units share.
        unit: the tar and the aug seeds.
        record: of the finished unit.
        teacher: as this environment loads it.
    """
    entry, tar = job.entries[unit.tar], job.extent.tars[unit.tar]
    with sample_reader.open_tar(entry, job.shards.path(entry)) as samples:
        views = np.stack(
            [replay.render_view(job.recipe, tar, samples, record.canary.row, aug_seed) for aug_seed in unit.aug_seeds]
        )
    # Pixels by digest and to the bit: whoever uses the store renders views, and compares them to the bit.
    if compatibility.pixels_sha256(views[unit.aug_seeds.index(record.canary.aug_seed)]) != record.canary.sha256:
        return False
    name = "logits" if job.recipe.k == "all" else "logp"
    stored = read_finished_array(job, unit, record, name)[:, record.canary.row]
    live = codec.pack(teacher.logits(views), job.recipe.k).arrays()[name]
    return np.allclose(stored.astype(np.float64), live.astype(np.float64), rtol=0, atol=_TOLERANCE)
