"""Compute one unit: render its views, forward them, pack its rows, and write it to the scratch folder."""

from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np

from teachonce.cache import (
    basis_reader,
    device_overlap,
    rendered_batches,
    row_packing,
    store_writer,
    unit_lookup,
    unit_plan,
)
from teachonce.core import hashing, run_record
from teachonce.format import codec, fidelity, fidelity_measurement, row_expansion, schema
from teachonce.shards import index, sample_reader
from teachonce.store import compatibility
from teachonce.teacher import predictor
from teachonce.views import mixing


def compute(
    job: unit_lookup.Job,
    unit: unit_plan.Unit,
    teacher: predictor.Predictor,
    pool: Executor,
    *,
    overlapped: bool | None = None,
) -> schema.UnitRecord:
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
        whole_logits = unit_lookup.find_finished(unit_lookup.with_whole_rows(job), unit) or compute(
            unit_lookup.with_whole_rows(job), unit, teacher, pool, overlapped=overlapped
        )
        return _repacked(job, unit, whole_logits)
    beside = device_overlap.is_suited_to(teacher.device) if overlapped is None else overlapped
    way = (
        device_overlap.OverlappedForward(teacher, _form(job, unit))
        if beside
        else row_packing.SequentialForward(teacher, _form(job, unit))
    )
    batches = rendered_batches.render_ahead(
        _atoms(job, unit), job.recipe, batch_size=job.batch_size, pool=pool, buffer=way.buffer, ahead=way.ahead
    )
    kept = _Kept(job, unit)
    for batch, packed in way.answers(batches):
        kept.add(batch, packed)
    answers = kept.answers()
    made = schema.UnitRecord(
        tar=unit.tar,
        group=unit.group,
        correct=kept.correct,
        views=len(answers.keys_N) * len(unit.aug_seeds),
        canary=schema.Canary(
            row=kept.canary_row, aug_seed=kept.canary_seed, sha256=compatibility.pixels_sha256(answers.canary_pixels)
        ),
        objects={},
        fidelity=kept.fidelity,
        versions=run_record.library_versions(),
        device=teacher.label,
        unlabelled=kept.unlabelled,
        tar_sha256=job.extent.tars[unit.tar].sha256,
    )
    return store_writer.write_unit(unit_lookup.finished_folder(job, unit), job.recipe, job.extent, answers, made)


def _form(job: unit_lookup.Job, unit: unit_plan.Unit) -> row_packing.Packing:
    tail, sketch = _tail(job)
    classes, tar = job.recipe.teacher.num_classes, job.entries[unit.tar].url
    return row_packing.Packing(job.recipe.k, classes, tail, sketch, unit.aug_seeds[0], tar)


def _atoms(job: unit_lookup.Job, unit: unit_plan.Unit) -> Iterator[rendered_batches.MixGroup]:
    entry = job.entries[unit.tar]
    samples = sample_reader.verified_samples(entry, job.shards.path(entry))
    return rendered_batches.mix_groups(samples, job.recipe, job.extent.tars[unit.tar], unit.aug_seeds)


def _repacked(job: unit_lookup.Job, unit: unit_plan.Unit, known: schema.UnitRecord) -> schema.UnitRecord:
    """A unit made of its whole logits, which are not forwarded again."""
    rows = job.extent.tars[unit.tar].nsamples
    logits_SNC = unit_lookup.read_finished_array(unit_lookup.with_whole_rows(job), unit, known, "logits").astype(
        np.float32, copy=False
    )
    canary = unit_lookup.read_finished_array(unit_lookup.with_whole_rows(job), unit, known, "canary").astype(
        np.uint8, copy=False
    )
    keys = unit_lookup.read_finished_array(unit_lookup.with_whole_rows(job), unit, known, "key")
    tail, sketch = _tail(job)
    packed_S = [codec.pack(logits_NC[:rows], job.recipe.k, tail) for logits_NC in logits_SNC]
    lost = fidelity_measurement.measure_rows(logits_SNC[0, :rows], packed_S[0], sketch)
    answers = store_writer.UnitRows(packed_S, keys[:rows].tolist(), canary)
    record = known.model_copy(update={"objects": {}, "fidelity": lost})
    return store_writer.write_unit(unit_lookup.finished_folder(job, unit), job.recipe, job.extent, answers, record)


def _tail(job: unit_lookup.Job) -> tuple[codec.TailCoding | None, row_expansion.TailDecoder | None]:
    if job.basis is None or not isinstance(job.recipe.tail, schema.TransformTail):
        return None, None
    found = basis_reader.read(job.basis, job.recipe.tail)
    return codec.TailCoding(found, job.recipe.tail.step), row_expansion.tail_decoder(job.recipe, found)


class _Kept:
    """What is kept of a unit while its logits stream by; packed batch by batch, never held whole as logits.

    Shapes: B views of a batch, S aug seeds, N rows.
    """

    def __init__(self, job: unit_lookup.Job, unit: unit_plan.Unit) -> None:
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

    def add(self, batch: rendered_batches.ViewBatch, packed: row_packing.PackedBatch) -> None:
        """Keep a batch."""
        views = batch.keys()
        rows_B = np.array([sample.row for sample, _ in views])
        seeds_B = np.array([aug_seed for _, aug_seed in views]) - self._seeds[0]
        for name, array in packed.rows.arrays().items():
            room = (len(self._seeds), len(self._keys), *array.shape[1:])
            self._arrays_SN.setdefault(name, np.empty(room, array.dtype))[seeds_B, rows_B] = array
        if packed.distances_DXN is not None and self._recipe.k != "all":
            more = fidelity_measurement.accumulate_distances(packed.distances_DXN, self._recipe.k)
            self.fidelity = fidelity.sum_distances([self.fidelity, more])
        labels_B = [label for atom in batch.atoms for label in _labels(atom, self._recipe)]
        self.correct += int((packed.likeliest() == labels_B).sum())
        self.unlabelled += labels_B.count(index.UNLABELLED)
        for place, (sample, aug_seed) in enumerate(views):
            self._keys[sample.row] = sample.key
            if (sample.row, aug_seed) == (self.canary_row, self.canary_seed):
                self._canary = batch.views[place].copy()

    def answers(self) -> store_writer.UnitRows:
        """All rows of the unit."""
        if self._canary is None:
            raise RuntimeError("no batch held the canary's row")
        rows_S = [
            codec.rows_from_arrays({name: array[seed] for name, array in self._arrays_SN.items()})
            for seed in range(len(self._seeds))
        ]
        return store_writer.UnitRows(rows_S, self._keys, self._canary)


def _labels(atom: rendered_batches.MixGroup, recipe: schema.Recipe) -> Iterator[int]:
    """Of each view; of a mixed one, that of the larger part."""
    for sample, aug_seed in atom.views():
        larger = sample
        if recipe.policy.mix is not None and len(atom.samples) == 2:
            own = mixing.draw_params(recipe.policy.mix, sample.key, aug_seed).weight
            larger = next(one for one in atom.samples if (one is sample) == (own >= 0.5))
        yield larger.label
