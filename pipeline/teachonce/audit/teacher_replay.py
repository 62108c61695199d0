"""Ask the teacher again for a sample of views, and compare with what the cache holds.

The same views in batches of another size tell how far two honest answers of this machine lie apart.

Shapes: B views, C classes, K kept classes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from teachonce.audit import audit_finding, view_sample
from teachonce.core import errors
from teachonce.format import basis, codec, fidelity, schema
from teachonce.store import store_reader

TOLERANCE = 0.05
"""Nats by which a log-probability or a logit may differ from one recomputed elsewhere, the codec's rounding apart."""

_CHANCE = 20.0
"""The audit of a sound store errs with a probability of e to the minus this, by chance of the sample."""
_BATCH_SIZE, _OTHER_BATCH_SIZE = 32, 5
_CURE = "Make it again: dvc repro cache; or distrust who sent it"
Floats = npt.NDArray[np.float64]


class LogitsModel(Protocol):
    """Who is asked: a `Predictor`."""

    def logits(self, views_B3HW: npt.NDArray[np.uint8], /) -> npt.NDArray[np.float32]:
        """Logits (B, C) of a batch of views."""


@dataclass(frozen=True, slots=True)
class LogitDifferences:
    """Largest difference of each view asked, in nats."""

    stored_B: Floats
    """float64 (B,): stored against live."""
    control_B: Floats
    """float64 (B,): live against live in other batches."""
    tolerance: float
    """What `stored_B` may be."""

    def facts(self) -> dict[str, object]:
        """Numbers for the report."""
        parts = {"stored_live": self.stored_B, "live_live": self.control_B}
        found = {
            name: {"mean": float(part.mean()), "p99": float(np.quantile(part, 0.99)), "max": float(part.max())}
            for name, part in parts.items()
        }
        return {"views": len(self.stored_B), "tolerance": self.tolerance, **found}


def compare_identity(folder: Path, cache: store_reader.Cache) -> Iterator[audit_finding.Finding]:
    """How the teacher at hand differs from the recipe's, field by field; its weights by sha256."""
    # Here and below: an audit without a teacher need not wait for torch.
    from teachonce.teacher import teacher_network  # noqa: PLC0415

    known = teacher_network.read_identity(folder)
    for name in schema.Teacher.model_fields:
        here, there = getattr(known, name), getattr(cache.recipe.teacher, name)
        if here != there:
            cure = "Audit with the teacher that made the cache"
            condition = f"that of {folder}, {here}"
            error = errors.IdentityError.for_value(cache.path, f"teacher.{name}", condition, there, cure)
            yield audit_finding.from_error(error)


def load_teacher(folder: Path, recipe: schema.Recipe) -> LogitsModel:
    """The teacher, ready to answer.

    Raises:
        ConfigError: its weights are missing, or not those of the identity beside them.
    """
    from teachonce.teacher import predictor, teacher_network  # noqa: PLC0415

    device = teacher_network.default_device()
    return predictor.Predictor(teacher_network.load(folder, device), recipe.teacher, device)


def compare_rows(
    cache: store_reader.Cache, views: Sequence[view_sample.SampledView], asked: LogitsModel
) -> tuple[LogitDifferences, list[audit_finding.Finding]]:
    """Compare stored rows with live answers.

    Args:
        cache: the store.
        views: with their pixels; those whose block cannot be read must have been left out.
        asked: the teacher.

    Returns:
        The differences; a finding for each object with rows beyond the tolerance, and for a store whose rows, as they
        are read, lose more than it tells.
    """
    from teachonce.format import fidelity_measurement, row_expansion  # noqa: PLC0415 - as above

    stored_B, control_B = np.zeros(len(views)), np.zeros(len(views))
    form, sketch = cache.recipe.tail, row_expansion.tail_decoder(cache.recipe, cache.basis)
    losses: list[dict[str, schema.Distances]] = []
    tail = codec.TailCoding(cache.basis, form.step) if cache.basis and isinstance(form, schema.TransformTail) else None
    for first in range(0, len(views), _BATCH_SIZE):
        part = views[first : first + _BATCH_SIZE]
        pixels = np.stack([view.pixels for view in part if view.pixels is not None])
        live_BC = asked.logits(pixels)
        other_BC = np.concatenate(
            [asked.logits(pixels[at : at + _OTHER_BATCH_SIZE]) for at in range(0, len(part), _OTHER_BATCH_SIZE)]
        )
        here, rows = slice(first, first + len(part)), _rows(cache, part)
        stored_B[here] = largest_differences(rows, live_BC, tail)
        losses.append(fidelity_measurement.measure_rows(live_BC, rows, sketch))
        control_B[here] = np.abs(live_BC.astype(np.float64) - other_BC).max(axis=1)
    # Arithmetic that is coarser than float32 is judged by its own noise, which the sender of a cache cannot raise.
    found = LogitDifferences(stored_B, control_B, TOLERANCE + 4 * float(control_B.max(initial=0)))
    return found, [*_findings(cache, views, found), *_losses(cache, fidelity.sum_distances(losses))]


def largest_differences(
    rows: codec.Rows, live_BC: npt.NDArray[np.float32], tail: codec.TailCoding | None = None
) -> Floats:
    """Largest difference of a row from the live logits, in nats: float64 (B,).

    Of whole rows, of any logit. Of kept classes, of any log-probability and of the log-sum-exp, beyond what the codec
    rounds; and by how much a class that was left out stands above the least one kept. Of a coded tail, of any
    coefficient in scaled nats, beyond the one step that rounding may move it.
    """
    wide_BC = live_BC.astype(np.float64)
    if rows.logits_BC is not None:
        apart_BC: Floats = np.abs(wide_BC - rows.logits_BC)
        return np.asarray(apart_BC.max(axis=1))
    if rows.class_id_BK is None or rows.logp_BK is None or rows.lse_B is None:
        raise TypeError("rows hold neither logits nor kept classes")
    top_B1 = wide_BC.max(axis=1, keepdims=True)
    lse_B1 = top_B1 + np.log(np.exp(wide_BC - top_B1).sum(axis=1, keepdims=True))
    logp_BC = np.maximum(wide_BC - lse_B1, float(np.finfo(np.float16).min))
    at_BK = rows.class_id_BK.astype(np.int64)
    stored_BK = rows.logp_BK.astype(np.float64)
    rounding_BK = np.abs(stored_BK) * 2.0**-11 + 2.0**-25
    kept_BK = np.abs(np.take_along_axis(logp_BC, at_BK, axis=1) - stored_BK) - rounding_BK
    np.put_along_axis(logp_BC, at_BK, -np.inf, axis=1)
    left_out_B = logp_BC.max(axis=1) - stored_BK[:, -1] - rounding_BK[:, -1]
    lse_B = np.abs(lse_B1[:, 0] - rows.lse_B)
    return np.asarray(np.maximum.reduce([kept_BK.max(axis=1), left_out_B, lse_B, _tail_distance(rows, live_BC, tail)]))


def _tail_distance(rows: codec.Rows, live_BC: npt.NDArray[np.float32], tail: codec.TailCoding | None) -> Floats:
    if tail is None or rows.tail_BR is None:
        return np.zeros(len(live_BC))
    live_BR = basis.unfold(basis.encode(tail.basis, live_BC, tail.step))
    steps_B = np.abs(live_BR - basis.unfold(rows.tail_BR)).max(axis=1)
    return np.asarray(np.maximum(steps_B - 1, 0) * tail.step, np.float64)


def _rows(cache: store_reader.Cache, views: Sequence[view_sample.SampledView]) -> codec.Rows:
    found = [
        {name: array[view.row] for name, array in cache.block(view.tar, view.aug_seed).arrays().items()}
        for view in views
    ]
    return codec.rows_from_arrays({name: np.stack([row[name] for row in found]) for name in found[0]})


def _findings(
    cache: store_reader.Cache, views: Sequence[view_sample.SampledView], found: LogitDifferences
) -> Iterator[audit_finding.Finding]:
    by_object: dict[Path, list[float]] = {}
    name = "logits" if cache.recipe.k == "all" else "logp"
    for view, distance_nats in zip(views, found.stored_B, strict=True):
        path = cache.place(name, view.tar, view.aug_seed // cache.extent.seeds_per_unit)
        by_object.setdefault(path, []).append(float(distance_nats))
    for path, distances in by_object.items():
        far = [one for one in distances if not one <= found.tolerance]
        if far:
            what = (
                f"rows must be the teacher's answers within {found.tolerance:.3g} nats. Got {len(far)} of "
                f"{len(distances)} rows asked that differ by up to {max(far):.3g}"
            )
            yield audit_finding.Finding(file=str(path), what=what, cure=_CURE)


def _losses(cache: store_reader.Cache, measured: dict[str, schema.Distances]) -> Iterator[audit_finding.Finding]:
    """Rows that are further from the teacher's softmax than the store tells.

    Coefficients are compared on the store's own basis, which whoever made the store chose, and so may be those of the
    teacher's answers and yet say something else.
    """
    worst: tuple[float, str] = 0.0, ""
    for name, recorded in cache.fidelity.items():
        if name not in measured:
            continue
        count, mean = measured[name].views, measured[name].tv / measured[name].views
        most = recorded["tv_mean"] + _margin(recorded["tv_mean"], count)
        what = f"{recorded['tv_mean']:.3g}, as told for {name}, up to {most:.3g} of {count} rows. Got {mean:.3g}"
        worst = max(worst, (mean - most, what))
    if worst[1]:
        what = f"mean total variation of rows to the teacher's softmax must be {worst[1]}"
        yield audit_finding.Finding(file=str(cache.path), what=what, cure=_CURE)


def _margin(mean: float, count: int) -> float:
    """By how much the mean of a sample of numbers within 0 … 1 may pass that of all: Bernstein's inequality."""
    # Such numbers vary most where each is 0 or 1, and then by less than their mean.
    return (_CHANCE / 3 + math.sqrt((_CHANCE / 3) ** 2 + 2 * _CHANCE * count * mean)) / count
