"""Run the teacher again on a sample of views, and compare its logits with what the cache holds.

The same views in batches of another size tell how far two correct answers of this machine lie apart.

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
"""A sound store fails the audit by chance of the sample with a probability of e to the minus this, two in a billion."""
_BATCH_SIZE, _OTHER_BATCH_SIZE = 32, 5
"""Views of a forward pass, and of the one it is compared with: in batches of another size, logits round otherwise."""
_CURE = "Make it again: dvc repro cache; or distrust who sent it"
Floats = npt.NDArray[np.float64]


class LogitsModel(Protocol):
    """What an audit needs of a teacher; `predictor.Predictor` has it."""

    def logits(self, views_B3HW: npt.NDArray[np.uint8], /) -> npt.NDArray[np.float32]:
        """Logits float32 (B, C) of a batch of views, uint8 (B, 3, H, W)."""


@dataclass(frozen=True, slots=True)
class LogitDifferences:
    """Largest difference of each sampled view, in nats."""

    stored_B: Floats
    """float64 (B,): stored rows against live ones."""
    control_B: Floats
    """float64 (B,): live against live in other batches."""
    tolerance: float
    """The most that `stored_B` may be, in nats."""

    def facts(self) -> dict[str, object]:
        """Mean, 99th percentile and maximum of both differences in nats, for the report."""
        parts = {"stored_live": self.stored_B, "live_live": self.control_B}
        summary = {
            name: {"mean": float(part.mean()), "p99": float(np.quantile(part, 0.99)), "max": float(part.max())}
            for name, part in parts.items()
        }
        return {"views": len(self.stored_B), "tolerance": self.tolerance, **summary}


def compare_identity(folder: Path, cache: store_reader.Cache) -> Iterator[audit_finding.Finding]:
    """How the teacher at hand differs from the recipe's, field by field; its weights by sha256."""
    # Imported here and below, since an audit without a teacher need not wait for torch.
    from teachonce.teacher import teacher_network  # noqa: PLC0415

    identity = teacher_network.read_identity(folder)
    for name in schema.Teacher.model_fields:
        local_value, recipe_value = getattr(identity, name), getattr(cache.recipe.teacher, name)
        if local_value != recipe_value:
            cure = "Audit with the teacher that made the cache"
            condition = f"that of {folder}, {local_value}"
            error = errors.IdentityError.for_value(cache.path, f"teacher.{name}", condition, recipe_value, cure)
            yield audit_finding.from_error(error)


def load_teacher(folder: Path, recipe: schema.Recipe) -> LogitsModel:
    """The teacher of a recipe on the default device, ready for a forward pass.

    Raises:
        ConfigError: its weights are missing, or not those of the identity beside them.
    """
    from teachonce.teacher import predictor, teacher_network  # noqa: PLC0415

    device = teacher_network.default_device()
    return predictor.Predictor(teacher_network.load(folder, device), recipe.teacher, device)


def compare_rows(
    cache: store_reader.Cache, views: Sequence[view_sample.SampledView], model: LogitsModel
) -> tuple[LogitDifferences, list[audit_finding.Finding]]:
    """Compare stored rows with rows from live logits of the same views.

    Args:
        cache: the store.
        views: with their pixels; those whose block cannot be read must have been left out.
        model: the teacher whose rows they should be.

    Returns:
        The differences; a finding for each object with rows beyond the tolerance, and for a store whose rows, as they
        are read, lose more than it tells.
    """
    from teachonce.format import fidelity_measurement, row_expansion  # noqa: PLC0415 - as above

    stored_B, control_B = np.zeros(len(views)), np.zeros(len(views))
    tail_spec, sketch = cache.recipe.tail, row_expansion.tail_decoder(cache.recipe, cache.basis)
    losses: list[dict[str, schema.Distances]] = []
    tail = (
        codec.TailCoding(cache.basis, tail_spec.step)
        if cache.basis and isinstance(tail_spec, schema.TransformTail)
        else None
    )
    for start in range(0, len(views), _BATCH_SIZE):
        part = views[start : start + _BATCH_SIZE]
        pixels = np.stack([view.pixels for view in part if view.pixels is not None])
        live_BC = model.logits(pixels)
        other_BC = np.concatenate(
            [
                model.logits(pixels[offset : offset + _OTHER_BATCH_SIZE])
                for offset in range(0, len(part), _OTHER_BATCH_SIZE)
            ]
        )
        in_batch, rows = slice(start, start + len(part)), _stored_rows(cache, part)
        stored_B[in_batch] = largest_differences(rows, live_BC, tail)
        losses.append(fidelity_measurement.measure_rows(live_BC, rows, sketch))
        control_B[in_batch] = np.abs(live_BC.astype(np.float64) - other_BC).max(axis=1)
    # Arithmetic that is coarser than float32, such as bfloat16, is judged by its own noise. That is measured here, live
    # against live, so that whoever sent the cache cannot raise it.
    differences = LogitDifferences(stored_B, control_B, TOLERANCE + 4 * float(control_B.max(initial=0)))
    return differences, [
        *_distance_findings(cache, views, differences),
        *_fidelity_findings(cache, fidelity.sum_distances(losses)),
    ]


def largest_differences(
    rows: codec.Rows, live_BC: npt.NDArray[np.float32], tail: codec.TailCoding | None = None
) -> Floats:
    """Largest difference of a row from the live logits, in nats: float64 (B,).

    Of whole rows, of any logit. Of kept classes, of any log-probability and of the log-sum-exp, beyond what the codec
    rounds; and by how much a class that was left out stands above the least one kept. Of a coded tail, of any
    coefficient in scaled nats, beyond the one step that rounding may move it.
    """
    # In float64: what shows is to be the error of the rows, not that of this comparison.
    wide_BC = live_BC.astype(np.float64)
    if rows.logits_BC is not None:
        difference_BC: Floats = np.abs(wide_BC - rows.logits_BC)
        return np.asarray(difference_BC.max(axis=1))
    if rows.class_id_BK is None or rows.logp_BK is None or rows.lse_B is None:
        raise TypeError("rows hold neither logits nor kept classes")
    top_B1 = wide_BC.max(axis=1, keepdims=True)
    lse_B1 = top_B1 + np.log(np.exp(wide_BC - top_B1).sum(axis=1, keepdims=True))
    # Clipped as the codec clips them: the least number that float16 holds stands for all that are smaller.
    logp_BC = np.maximum(wide_BC - lse_B1, float(np.finfo(np.float16).min))
    at_BK = rows.class_id_BK.astype(np.int64)
    stored_BK = rows.logp_BK.astype(np.float64)
    # Half a unit in the last place of float16, relative to the value; and half of its smallest step, near zero.
    rounding_BK = np.abs(stored_BK) * 2.0**-11 + 2.0**-25
    logp_difference_BK = np.abs(np.take_along_axis(logp_BC, at_BK, axis=1) - stored_BK) - rounding_BK
    # With the kept classes out of the way, the likeliest one left must not pass the least one kept: rows that hold
    # right values of wrong classes would else pass for sound.
    np.put_along_axis(logp_BC, at_BK, -np.inf, axis=1)
    left_out_B = logp_BC.max(axis=1) - stored_BK[:, -1] - rounding_BK[:, -1]
    lse_B = np.abs(lse_B1[:, 0] - rows.lse_B)
    return np.asarray(
        np.maximum.reduce([logp_difference_BK.max(axis=1), left_out_B, lse_B, _tail_distance(rows, live_BC, tail)])
    )


def _tail_distance(rows: codec.Rows, live_BC: npt.NDArray[np.float32], tail: codec.TailCoding | None) -> Floats:
    if tail is None or rows.tail_BR is None:
        return np.zeros(len(live_BC))
    # Unfolded first: folded coefficients lie in the order 0, −1, 1, −2, where neighbours differ by more than a step.
    live_BR = basis.unfold(basis.encode(tail.basis, live_BC, tail.step))
    steps_B = np.abs(live_BR - basis.unfold(rows.tail_BR)).max(axis=1)
    return np.asarray(np.maximum(steps_B - 1, 0) * tail.step, np.float64)


def _stored_rows(cache: store_reader.Cache, views: Sequence[view_sample.SampledView]) -> codec.Rows:
    rows = [
        {name: array[view.row] for name, array in cache.block(view.tar, view.aug_seed).arrays().items()}
        for view in views
    ]
    return codec.rows_from_arrays({name: np.stack([row[name] for row in rows]) for name in rows[0]})


def _distance_findings(
    cache: store_reader.Cache, views: Sequence[view_sample.SampledView], differences: LogitDifferences
) -> Iterator[audit_finding.Finding]:
    by_object: dict[Path, list[float]] = {}
    name = "logits" if cache.recipe.k == "all" else "logp"
    for view, distance_nats in zip(views, differences.stored_B, strict=True):
        path = cache.place(name, view.tar, view.aug_seed // cache.extent.seeds_per_unit)
        by_object.setdefault(path, []).append(float(distance_nats))
    for path, distances in by_object.items():
        # Asked in this direction, so that NaN is beyond the tolerance too.
        far_nats = [nats for nats in distances if not nats <= differences.tolerance]
        if far_nats:
            what = (
                f"rows must be the teacher's answers within {differences.tolerance:.3g} nats. Got {len(far_nats)} of "
                f"{len(distances)} rows asked that differ by up to {max(far_nats):.3g}"
            )
            yield audit_finding.Finding(file=str(path), what=what, cure=_CURE)


def _fidelity_findings(
    cache: store_reader.Cache, measured: dict[str, schema.Distances]
) -> Iterator[audit_finding.Finding]:
    """A finding where rows, as they are read, are further from the teacher's softmax than the store's fidelity says.

    Coefficients are compared on the store's own basis, which whoever made the store has chosen: they can be right on it
    and still decode to something else than the teacher's softmax.
    """
    worst: tuple[float, str] = 0.0, ""
    for name, recorded in cache.fidelity.items():
        if name not in measured:
            continue
        count, mean = measured[name].views, measured[name].tv / measured[name].views
        limit = recorded["tv_mean"] + _margin(recorded["tv_mean"], count)
        what = f"{recorded['tv_mean']:.3g}, as told for {name}, up to {limit:.3g} of {count} rows. Got {mean:.3g}"
        worst = max(worst, (mean - limit, what))
    if worst[1]:
        what = f"mean total variation of rows to the teacher's softmax must be {worst[1]}"
        yield audit_finding.Finding(file=str(cache.path), what=what, cure=_CURE)


def _margin(mean: float, count: int) -> float:
    """By how much the mean of `count` numbers drawn from many in 0 … 1 may pass that of all: Bernstein's bound."""
    # The inequality needs their variance, which the store does not tell: of numbers within 0 … 1 it is below their
    # mean.
    return (_CHANCE / 3 + math.sqrt((_CHANCE / 3) ** 2 + 2 * _CHANCE * count * mean)) / count
