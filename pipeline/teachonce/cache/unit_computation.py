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
    """Forward the unit's views, unless their whole logits are in the scratch folder, and write the unit there.

    Args:
        job: what all units share.
        unit: the tar and the aug seeds.
        teacher: compiled as the job says.
        pool: executor of the threads or processes that render.
        overlapped: copy, forward, pack and read side by side, packing on the device (`device_overlap`); by default as
            suits the teacher's device. Part of no identity: it is for tests and measurements to choose.

    Raises:
        DataError: the tar is not the one the index names.
        NumericsError: a logit is not finite; the message names the row.
    """
    # The basis was fitted on whole logits of these very views, which are in the scratch folder: no view is forwarded
    # twice. Where they were lost, they are computed as whole rows again, so that the bytes are the same either way.
    if unit.group == 0 and unit.tar < job.fit_tars:
        whole_job = unit_lookup.with_whole_rows(job)
        whole_record = unit_lookup.find_finished(whole_job, unit) or compute(
            whole_job, unit, teacher, pool, overlapped=overlapped
        )
        return _repack(job, unit, whole_record)
    overlaps = device_overlap.is_suited_to(teacher.device) if overlapped is None else overlapped
    forward = (
        device_overlap.OverlappedForward(teacher, _packing(job, unit))
        if overlaps
        else row_packing.SequentialForward(teacher, _packing(job, unit))
    )
    batches = rendered_batches.render_ahead(
        _mix_groups(job, unit),
        job.recipe,
        batch_size=job.batch_size,
        pool=pool,
        buffer=forward.buffer,
        ahead=forward.ahead,
    )
    collected = _Collector(job, unit)
    for batch, packed in forward.pack_batches(batches):
        collected.add(batch, packed)
    unit_rows = collected.unit_rows()
    record = schema.UnitRecord(
        tar=unit.tar,
        group=unit.group,
        correct=collected.correct,
        views=len(unit_rows.keys_N) * len(unit.aug_seeds),
        canary=schema.Canary(
            row=collected.canary_row,
            aug_seed=collected.canary_seed,
            sha256=compatibility.pixels_sha256(unit_rows.canary_pixels),
        ),
        objects={},
        fidelity=collected.fidelity,
        versions=run_record.library_versions(),
        device=teacher.label,
        unlabelled=collected.unlabelled,
        tar_sha256=job.extent.tars[unit.tar].sha256,
    )
    return store_writer.write_unit(unit_lookup.finished_folder(job, unit), job.recipe, job.extent, unit_rows, record)


def _packing(job: unit_lookup.Job, unit: unit_plan.Unit) -> row_packing.Packing:
    tail, sketch = _tail(job)
    classes, tar = job.recipe.teacher.num_classes, job.entries[unit.tar].url
    return row_packing.Packing(job.recipe.k, classes, tail, sketch, unit.aug_seeds[0], tar)


def _mix_groups(job: unit_lookup.Job, unit: unit_plan.Unit) -> Iterator[rendered_batches.MixGroup]:
    entry = job.entries[unit.tar]
    samples = sample_reader.verified_samples(entry, job.shards.path(entry))
    return rendered_batches.mix_groups(samples, job.recipe, job.extent.tars[unit.tar], unit.aug_seeds)


def _repack(job: unit_lookup.Job, unit: unit_plan.Unit, whole_record: schema.UnitRecord) -> schema.UnitRecord:
    """Write a unit from its whole logits, which are not forwarded again."""
    whole_job = unit_lookup.with_whole_rows(job)
    rows = job.extent.tars[unit.tar].nsamples
    logits, canary, keys = (
        unit_lookup.read_finished_array(whole_job, unit, whole_record, name) for name in ("logits", "canary", "key")
    )
    logits_SNC = logits.astype(np.float32, copy=False)
    tail, sketch = _tail(job)
    packed_S = [codec.pack(logits_NC[:rows], job.recipe.k, tail) for logits_NC in logits_SNC]
    distances = fidelity_measurement.measure_rows(logits_SNC[0, :rows], packed_S[0], sketch)
    unit_rows = store_writer.UnitRows(packed_S, keys[:rows].tolist(), canary.astype(np.uint8, copy=False))
    record = whole_record.model_copy(update={"objects": {}, "fidelity": distances})
    return store_writer.write_unit(unit_lookup.finished_folder(job, unit), job.recipe, job.extent, unit_rows, record)


def _tail(job: unit_lookup.Job) -> tuple[codec.TailCoding | None, row_expansion.TailDecoder | None]:
    if job.basis is None or not isinstance(job.recipe.tail, schema.TransformTail):
        return None, None
    tail_basis = basis_reader.read(job.basis, job.recipe.tail)
    return codec.TailCoding(tail_basis, job.recipe.tail.step), row_expansion.tail_decoder(job.recipe, tail_basis)


class _Collector:
    """Rows, counts and canary of a unit, filled batch by batch: its whole logits would take too much memory.

    Shapes: B views of a batch, S aug seeds, N rows.
    """

    def __init__(self, job: unit_lookup.Job, unit: unit_plan.Unit) -> None:
        tar = job.extent.tars[unit.tar]
        # The canary's pixels prove, wherever the store is used, that views still render as the teacher saw them. A hash
        # spreads canaries over rows and seeds, so that all of a policy's operations are met among some of them.
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
        """Put a batch's rows where they belong; add to the counts."""
        views = batch.keys()
        rows_B = np.array([sample.row for sample, _ in views])
        seeds_B = np.array([aug_seed for _, aug_seed in views]) - self._seeds[0]
        for name, array in packed.rows.arrays().items():
            # Placed by row and seed: in a mixed unit, batches come in the order of pairs.
            shape = (len(self._seeds), len(self._keys), *array.shape[1:])
            self._arrays_SN.setdefault(name, np.empty(shape, array.dtype))[seeds_B, rows_B] = array
        if packed.distances_DXN is not None and self._recipe.k != "all":
            distances = fidelity_measurement.accumulate_distances(packed.distances_DXN, self._recipe.k)
            self.fidelity = fidelity.sum_distances([self.fidelity, distances])
        labels_B = [label for group in batch.groups for label in _labels(group, self._recipe)]
        self.correct += int((packed.likeliest() == labels_B).sum())
        self.unlabelled += labels_B.count(index.UNLABELLED)
        for position, (sample, aug_seed) in enumerate(views):
            self._keys[sample.row] = sample.key
            if (sample.row, aug_seed) == (self.canary_row, self.canary_seed):
                self._canary = batch.views[position].copy()

    def unit_rows(self) -> store_writer.UnitRows:
        """All rows of the unit, after its last batch."""
        if self._canary is None:
            raise RuntimeError("no batch held the canary's row")
        rows_S = [
            codec.rows_from_arrays({name: array[seed] for name, array in self._arrays_SN.items()})
            for seed in range(len(self._seeds))
        ]
        return store_writer.UnitRows(rows_S, self._keys, self._canary)


def _labels(group: rendered_batches.MixGroup, recipe: schema.Recipe) -> Iterator[int]:
    """The label of each view; of a mixed one, that of the larger part."""
    for sample, aug_seed in group.views():
        larger = sample
        if recipe.policy.mix is not None and len(group.samples) == 2:
            weight = mixing.draw_params(recipe.policy.mix, sample.key, aug_seed).weight
            larger = next(part for part in group.samples if (part is sample) == (weight >= 0.5))
        yield larger.label
