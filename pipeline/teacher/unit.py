"""Compute one unit, or find it finished in the scratch folder and prove that it can be used.

A finished unit lies under a name that hashes what determines its bytes. Resume after a crash, growth by seeds or tars
and a second run are one thing: look up, compute what is missing.
"""

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr
from safetensors.numpy import load_file

from pipeline.base import config, errors, hashing, record
from pipeline.cache import basis, codec, fidelity, identity, layout, plan, schema, target, write
from pipeline.shards import decode, index, read
from pipeline.teacher import feed, predict

CODE = (
    "shards/decode.py",
    "views",
    *(f"cache/{name}.py" for name in ("basis", "codec", "fidelity", "identity", "layout", "target", "write")),
    *(f"teacher/{name}.py" for name in ("feed", "model", "predict", "unit")),
)
"""The modules that decide a unit's bytes."""

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
    """Digest of the modules that decide bytes (`CODE`)."""
    basis: Path | None = None
    """File of the basis of a transform tail."""
    fit_tars: int = 0
    """Tars whose units of group 0 the basis was fitted on: their whole logits lie in the scratch folder."""


def whole(job: Job) -> Job:
    """The same job with whole rows."""
    recipe = job.recipe.model_copy(update={"k": "all", "tail": "none"})
    return replace(job, recipe=recipe, basis=None, fit_tars=0)


def folder(job: Job, unit: plan.Unit) -> Path:
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
        }
    )
    return job.scratch / name


def finished(job: Job, unit: plan.Unit) -> schema.Unit | None:
    """The record of a unit that was finished before, placed where this run needs it; None where it must be computed."""
    path = folder(job, unit) / schema.UNIT
    try:
        found = config.parse(json.loads(path.read_text(encoding="utf-8")), schema.Unit, str(path))
    except (OSError, ValueError, errors.ConfigError):
        return None
    specs = layout.of_unit(layout.arrays(job.recipe, job.extent.rows_per_tar), unit.group)
    for name, spec in specs.items():
        stored = path.parent / layout.object_path(name, spec, 0, 0)
        if not stored.is_file() or hashing.sha256_file(stored) != found.objects.get(name):
            return None
    return found.model_copy(update={"tar": unit.tar, "group": unit.group})


def is_current(known: schema.Unit) -> bool:
    """Was it made by the libraries that are installed here?"""
    return known.versions == record.versions()


def compute(job: Job, unit: plan.Unit, teacher: predict.Predictor, pool: ThreadPoolExecutor) -> schema.Unit:
    """Forward the unit's views, unless whole logits of them are kept, and write it to the scratch folder.

    Raises:
        DataError: the tar is not the one the index names.
        NumericsError: a logit is not finite; the message names the row.
    """
    if unit.group == 0 and unit.tar < job.fit_tars:
        return _repacked(job, unit, finished(whole(job), unit) or compute(whole(job), unit, teacher, pool))
    entry = job.entries[unit.tar]
    samples = read.verified(entry, job.shards.path(entry))
    kept = _Kept(job, unit)
    for batch in feed.batches(samples, job.recipe, unit.aug_seeds, batch_size=job.batch_size, pool=pool):
        logits = teacher.logits(batch.views)
        _refuse_non_finite(logits, batch, unit.aug_seeds, entry.url)
        kept.add(batch, logits)
    answers = kept.answers()
    made = schema.Unit(
        tar=unit.tar,
        group=unit.group,
        correct=kept.correct,
        views=len(answers.keys_N) * len(unit.aug_seeds),
        canary=schema.Canary(
            row=kept.canary_row, aug_seed=kept.canary_seed, sha256=identity.pixels_sha256(answers.canary_pixels)
        ),
        objects={},
        fidelity=kept.fidelity,
        versions=record.versions(),
        device=teacher.label,
    )
    return write.unit(folder(job, unit), job.recipe, job.extent, answers, made)


def _repacked(job: Job, unit: plan.Unit, known: schema.Unit) -> schema.Unit:
    """A unit made of its whole logits, which are not forwarded again."""
    group = zarr.open_group(str(folder(whole(job), unit)), mode="r")
    rows = job.extent.tars[unit.tar].nsamples
    logits_SNC, keys, canary = (np.asarray(group[name][0]) for name in ("logits", "key", "canary"))  # type: ignore[index]
    tail, sketch = _tail(job)
    packed_S = [codec.pack(logits_NC[:rows], job.recipe.k, tail) for logits_NC in logits_SNC]
    lost = fidelity.measure(logits_SNC[0, :rows], packed_S[0], sketch)
    answers = write.Answers(packed_S, keys[:rows].tolist(), canary)
    record = known.model_copy(update={"objects": {}, "fidelity": lost})
    return write.unit(folder(job, unit), job.recipe, job.extent, answers, record)


def _tail(job: Job) -> tuple[codec.Tail | None, target.Sketch | None]:
    if job.basis is None or not isinstance(job.recipe.tail, schema.TransformTail):
        return None, None
    found = _basis(job.basis)
    return codec.Tail(found, job.recipe.tail.step), target.sketch(job.recipe, found)


@functools.lru_cache(maxsize=1)
def _basis(path: Path) -> basis.Basis:
    return basis.from_arrays(load_file(path))


class _Kept:
    """What is kept of a unit while its logits stream by; packed batch by batch, never held whole as logits."""

    def __init__(self, job: Job, unit: plan.Unit) -> None:
        tar = job.extent.tars[unit.tar]
        # A hash spreads the remembered views over rows and seeds.
        pick = hashing.seed64("canary", tar.sha256, unit.group)
        self.canary_row = pick % tar.nsamples
        self.canary_seed = unit.aug_seeds[pick // tar.nsamples % len(unit.aug_seeds)]
        self.correct = 0
        self.fidelity: dict[str, schema.Distances] = {}
        self._k = job.recipe.k
        self._tail, self._sketch = _tail(job)
        self._seeds = unit.aug_seeds
        self._keys: list[str] = []
        self._arrays: dict[str, list[codec.Array]] = {}
        self._canary: feed.Pixels | None = None

    def add(self, batch: feed.Batch, logits_BC: npt.NDArray[np.float32]) -> None:
        """Keep a batch: float32 (N × S, C), the S views of a row together."""
        seeds, images = len(self._seeds), len(batch.samples)
        rows = codec.pack(logits_BC, self._k, self._tail)
        for name, array in rows.arrays().items():
            self._arrays.setdefault(name, []).append(array.reshape(images, seeds, *array.shape[1:]))
        # One aug seed of each unit is a sample large enough, and leaves the forward passes their time.
        first = codec.from_arrays({name: array[::seeds] for name, array in rows.arrays().items()})
        self.fidelity = fidelity.add([self.fidelity, fidelity.measure(logits_BC[::seeds], first, self._sketch)])
        labels = np.repeat([sample.label for sample in batch.samples], seeds)
        self.correct += int((logits_BC.argmax(axis=1) == labels).sum())
        self._keys += [sample.key for sample in batch.samples]
        at = self.canary_row - batch.samples[0].row
        if 0 <= at < images:
            self._canary = batch.views[at * seeds + self._seeds.index(self.canary_seed)].copy()

    def answers(self) -> write.Answers:
        """All rows of the unit."""
        if self._canary is None:
            raise RuntimeError("no batch held the canary's row")
        whole = {name: np.concatenate(parts) for name, parts in self._arrays.items()}
        rows_S = [
            codec.from_arrays({name: array[:, seed] for name, array in whole.items()})
            for seed in range(len(self._seeds))
        ]
        return write.Answers(rows_S, self._keys, self._canary)


def replays(job: Job, unit: plan.Unit, known: schema.Unit, teacher: predict.Predictor) -> bool:
    """Recompute the canary's pixels and its rows of a finished unit: would this environment have made the same?

    Asked where the libraries differ from those of the record. Pixels must be equal; log-probabilities may differ by
    rounding, since the batch is another one.
    """
    entry = job.entries[unit.tar]
    sample = next(s for s in read.verified(entry, job.shards.path(entry)) if s.row == known.canary.row)
    image = decode.rgb(sample.image, sample.key)
    views = np.stack([identity.render(job.recipe, image, sample.key, seed) for seed in unit.aug_seeds])
    if identity.pixels_sha256(views[unit.aug_seeds.index(known.canary.aug_seed)]) != known.canary.sha256:
        return False
    name = "logits" if job.recipe.k == "all" else "logp"
    stored = np.asarray(zarr.open_array(str(folder(job, unit) / name), mode="r")[0, :, known.canary.row])
    found = codec.pack(teacher.logits(views), job.recipe.k).arrays()[name]
    return np.allclose(stored.astype(np.float64), found.astype(np.float64), rtol=0, atol=_TOLERANCE)


def _refuse_non_finite(
    logits: npt.NDArray[np.float32], batch: feed.Batch, aug_seeds: tuple[int, ...], tar: str
) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if bad.size:
        row, seed = divmod(int(bad[0]), len(aug_seeds))
        raise errors.NumericsError(
            f"{tar}: the teacher's logits of {batch.samples[row].key!r}, aug seed {aug_seeds[seed]}, are not finite "
            f"({bad.size} views of the batch). Try precision: float32, or check the teacher's weights"
        )
