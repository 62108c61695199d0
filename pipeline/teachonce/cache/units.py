"""Compute one unit, or find it finished in the scratch folder and prove that it can be used.

A finished unit lies under a name that hashes what determines its bytes. Resume after a crash, growth by seeds or tars
and a second run are one thing: look up, compute what is missing.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teachonce.cache import (
    basis_reader,
    device_overlap,
    finished_units,
    rendered_batches,
    row_packing,
    store_writer,
    unit_plan,
)
from teachonce.core import errors, files, hashing, locks, run_record
from teachonce.format import codec, fidelity, fidelity_measurement, layout, row_targets, schema
from teachonce.shards import index, sample_reader
from teachonce.store import compatibility, replay
from teachonce.teacher import predictor
from teachonce.views import mixing

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
    """Digest of the code that decides bytes (`unit_code.digest`)."""
    basis: Path | None = None
    """File of the basis of a transform tail."""
    fit_tars: int = 0
    """Tars whose units of group 0 the basis was fitted on: their whole logits lie in the scratch folder."""
    compiled: bool = False
    """Whether the network is compiled, for batches of `batch_size`: it rounds otherwise."""


def whole(job: Job) -> Job:
    """The same job with whole rows."""
    recipe = job.recipe.model_copy(update={"k": "all", "tail": "none"})
    return replace(job, recipe=recipe, basis=None, fit_tars=0)


def folder(job: Job, unit: unit_plan.Unit) -> Path:
    """Where the finished unit lies: a name that changes with anything that changes its bytes."""
    name = hashing.digest(
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


def turn(job: Job, unit: unit_plan.Unit) -> AbstractContextManager[None]:
    """While no other process, on any machine, is at the unit: where a driver died, its last ones may still be made."""
    return locks.turn(job.scratch / "turns", folder(job, unit).name)


def finished(job: Job, unit: unit_plan.Unit) -> schema.Unit | None:
    """The record of a unit that was finished before, placed where this run needs it; None where it must be computed.

    One that is damaged is named and removed. To be called in the unit's turn.
    """
    try:
        return sound(job, unit)
    except errors.CacheError as error:
        _LOG.warning("%s", error)
        files.remove(folder(job, unit))
        return None


def sound(job: Job, unit: unit_plan.Unit) -> schema.Unit | None:
    """The record that `finished` gives, with nothing changed.

    Raises:
        CacheError: the unit is damaged.
    """
    path = folder(job, unit)
    if not os.path.lexists(path):
        return None
    record = finished_units.read(path, _specs(job, unit), len(unit.aug_seeds))
    return record.model_copy(update={"tar": unit.tar, "group": unit.group})


def array(job: Job, unit: unit_plan.Unit, record: schema.Unit, name: str) -> npt.NDArray[np.generic]:
    """An array of a finished unit: (aug seeds, rows_per_tar, …), or the one block of an array by tar.

    Raises:
        CacheError: it has changed since.
    """
    return finished_units.array(folder(job, unit), name, _specs(job, unit)[name], record, len(unit.aug_seeds))


def _specs(job: Job, unit: unit_plan.Unit) -> dict[str, layout.ArraySpec]:
    return layout.of_unit(layout.arrays(job.recipe, job.extent.rows_per_tar), unit.group)


def is_current(known: schema.Unit) -> bool:
    """Was it made by the libraries that are installed here?"""
    return known.versions == run_record.versions()


def compute(
    job: Job, unit: unit_plan.Unit, teacher: predictor.Predictor, pool: Executor, *, overlapped: bool | None = None
) -> schema.Unit:
    """Forward the unit's views, unless whole logits of them are kept, and write it to the scratch folder.

    Args:
        job: what all units share.
        unit: which.
        teacher: compiled as the job says.
        pool: renders.
        overlapped: copy, forward, pack and read side by side, packing on the device (`overlap`); by default as suits
            the teacher's device. Part of no identity: it is for tests and measurements to choose.

    Raises:
        DataError: the tar is not the one the index names.
        NumericsError: a logit is not finite; the message names the row.
    """
    if unit.group == 0 and unit.tar < job.fit_tars:
        whole_logits = finished(whole(job), unit) or compute(whole(job), unit, teacher, pool, overlapped=overlapped)
        return _repacked(job, unit, whole_logits)
    beside = device_overlap.suits(teacher.device) if overlapped is None else overlapped
    way = device_overlap.Overlap(teacher, _form(job, unit)) if beside else row_packing.Plain(teacher, _form(job, unit))
    batches = rendered_batches.batches(
        _atoms(job, unit), job.recipe, batch_size=job.batch_size, pool=pool, buffer=way.buffer, ahead=way.ahead
    )
    kept = _Kept(job, unit)
    for batch, packed in way.answers(batches):
        kept.add(batch, packed)
    answers = kept.answers()
    made = schema.Unit(
        tar=unit.tar,
        group=unit.group,
        correct=kept.correct,
        views=len(answers.keys_N) * len(unit.aug_seeds),
        canary=schema.Canary(
            row=kept.canary_row, aug_seed=kept.canary_seed, sha256=compatibility.pixels_sha256(answers.canary_pixels)
        ),
        objects={},
        fidelity=kept.fidelity,
        versions=run_record.versions(),
        device=teacher.label,
        unlabelled=kept.unlabelled,
        tar_sha256=job.extent.tars[unit.tar].sha256,
    )
    return store_writer.unit(folder(job, unit), job.recipe, job.extent, answers, made)


def _form(job: Job, unit: unit_plan.Unit) -> row_packing.Packing:
    tail, sketch = _tail(job)
    classes, tar = job.recipe.teacher.num_classes, job.entries[unit.tar].url
    return row_packing.Packing(job.recipe.k, classes, tail, sketch, unit.aug_seeds[0], tar)


def _atoms(job: Job, unit: unit_plan.Unit) -> Iterator[rendered_batches.Atom]:
    entry = job.entries[unit.tar]
    samples = sample_reader.verified(entry, job.shards.path(entry))
    return rendered_batches.atoms(samples, job.recipe, job.extent.tars[unit.tar], unit.aug_seeds)


def _repacked(job: Job, unit: unit_plan.Unit, known: schema.Unit) -> schema.Unit:
    """A unit made of its whole logits, which are not forwarded again."""
    rows = job.extent.tars[unit.tar].nsamples
    logits_SNC = array(whole(job), unit, known, "logits").astype(np.float32, copy=False)
    canary = array(whole(job), unit, known, "canary").astype(np.uint8, copy=False)
    keys = array(whole(job), unit, known, "key")
    tail, sketch = _tail(job)
    packed_S = [codec.pack(logits_NC[:rows], job.recipe.k, tail) for logits_NC in logits_SNC]
    lost = fidelity_measurement.measure(logits_SNC[0, :rows], packed_S[0], sketch)
    answers = store_writer.Answers(packed_S, keys[:rows].tolist(), canary)
    record = known.model_copy(update={"objects": {}, "fidelity": lost})
    return store_writer.unit(folder(job, unit), job.recipe, job.extent, answers, record)


def _tail(job: Job) -> tuple[codec.Tail | None, row_targets.Sketch | None]:
    if job.basis is None or not isinstance(job.recipe.tail, schema.TransformTail):
        return None, None
    found = basis_reader.read(job.basis, job.recipe.tail)
    return codec.Tail(found, job.recipe.tail.step), row_targets.sketch(job.recipe, found)


class _Kept:
    """What is kept of a unit while its logits stream by; packed batch by batch, never held whole as logits.

    Shapes: B views of a batch, S aug seeds, N rows.
    """

    def __init__(self, job: Job, unit: unit_plan.Unit) -> None:
        tar = job.extent.tars[unit.tar]
        # A hash spreads the remembered views over rows and seeds.
        pick = hashing.seed64("canary", tar.sha256, unit.group)
        self.canary_row = pick % tar.nsamples
        self.canary_seed = unit.aug_seeds[pick // tar.nsamples % len(unit.aug_seeds)]
        self.correct = 0
        self.unlabelled = 0
        self.fidelity: dict[str, schema.Distances] = {}
        self._recipe = job.recipe
        self._seeds = unit.aug_seeds
        self._keys = [""] * tar.nsamples
        self._arrays_SN: dict[str, codec.Array] = {}
        self._canary: rendered_batches.Pixels | None = None

    def add(self, batch: rendered_batches.Batch, packed: row_packing.Packed) -> None:
        """Keep a batch."""
        views = batch.keys()
        rows_B = np.array([sample.row for sample, _ in views])
        seeds_B = np.array([aug_seed for _, aug_seed in views]) - self._seeds[0]
        for name, array in packed.rows.arrays().items():
            room = (len(self._seeds), len(self._keys), *array.shape[1:])
            self._arrays_SN.setdefault(name, np.empty(room, array.dtype))[seeds_B, rows_B] = array
        if packed.distances_DXN is not None and self._recipe.k != "all":
            more = fidelity_measurement.collect(packed.distances_DXN, self._recipe.k)
            self.fidelity = fidelity.add([self.fidelity, more])
        labels_B = [label for atom in batch.atoms for label in _labels(atom, self._recipe)]
        self.correct += int((packed.likeliest() == labels_B).sum())
        self.unlabelled += labels_B.count(index.UNLABELLED)
        for place, (sample, aug_seed) in enumerate(views):
            self._keys[sample.row] = sample.key
            if (sample.row, aug_seed) == (self.canary_row, self.canary_seed):
                self._canary = batch.views[place].copy()

    def answers(self) -> store_writer.Answers:
        """All rows of the unit."""
        if self._canary is None:
            raise RuntimeError("no batch held the canary's row")
        rows_S = [
            codec.from_arrays({name: array[seed] for name, array in self._arrays_SN.items()})
            for seed in range(len(self._seeds))
        ]
        return store_writer.Answers(rows_S, self._keys, self._canary)


def _labels(atom: rendered_batches.Atom, recipe: schema.Recipe) -> Iterator[int]:
    """Of each view; of a mixed one, that of the larger part."""
    for sample, aug_seed in atom.views():
        larger = sample
        if recipe.policy.mix is not None and len(atom.samples) == 2:
            own = mixing.mixing(recipe.policy.mix, sample.key, aug_seed).own
            larger = next(one for one in atom.samples if (one is sample) == (own >= 0.5))
        yield larger.label


def replays(job: Job, unit: unit_plan.Unit, known: schema.Unit, teacher: predictor.Predictor) -> bool:
    """Recompute the canary's pixels and its rows of a finished unit: would this environment have made the same?

    Asked where the libraries differ from those of the record. Pixels must be equal; log-probabilities may differ by
    rounding, since the batch is another one.
    """
    entry, tar = job.entries[unit.tar], job.extent.tars[unit.tar]
    with sample_reader.opened(entry, job.shards.path(entry)) as samples:
        views = np.stack(
            [replay.view(job.recipe, tar, samples, known.canary.row, aug_seed) for aug_seed in unit.aug_seeds]
        )
    if compatibility.pixels_sha256(views[unit.aug_seeds.index(known.canary.aug_seed)]) != known.canary.sha256:
        return False
    name = "logits" if job.recipe.k == "all" else "logp"
    stored = array(job, unit, known, name)[:, known.canary.row]
    answers = codec.pack(teacher.logits(views), job.recipe.k).arrays()[name]
    return np.allclose(stored.astype(np.float64), answers.astype(np.float64), rtol=0, atol=_TOLERANCE)
