"""Measure forms of rows on the logits that a basis is fitted on: images of the fit and of the measurement apart.

Costs some seconds of one core at a thousand classes: a bounded number of views is measured, whatever the fit has.

Shapes: S aug seeds, N rows of a tar, B views measured, C classes, R coefficients.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import zarr
import zarr.storage

from teachonce.format import basis, codec, fidelity, layout, row_expansion, row_frontier, schema, zarr_arrays

KS = (5, 10, 20, 50, 100)
RANKS = (64, 128, 256, 512)
STEPS = (2.0, 3.0, 4.0)
_EVERY = 4
_MOST = 1000
"""Views measured."""


def hold_out_views(logits_SNC: basis.Floats) -> tuple[basis.Floats, basis.Floats]:
    """A tar's logits to fit on and to measure on, views behind one another: every fourth image is measured.

    The fit keeps most of them, since a basis of fewer views is worse than the one that the store will have.
    """
    measured_N = np.arange(logits_SNC.shape[1]) % _EVERY == _EVERY - 1
    fit_BC, measured_BC = (
        logits_SNC[:, rows_N].reshape(-1, logits_SNC.shape[-1]) for rows_N in (~measured_N, measured_N)
    )
    return fit_BC, measured_BC


def fittable_ranks(asked: int, views: int, classes: int) -> list[int]:
    """The ranks of the grid that can be fitted on so many views."""
    return sorted(rank for rank in {asked, *RANKS} if rank < min(views, classes))


@dataclass(frozen=True, slots=True, eq=False)
class Holdout:
    """What forms are measured on."""

    logits_BC: basis.Floats
    """float32 (B, C), of images that the basis has not seen."""
    basis: basis.Basis
    """Of the greatest rank; its first components are the basis of a smaller one."""
    recipe: schema.Recipe
    """Of the store, whatever its k and tail."""
    rows_per_tar: int
    """Rows of a compressed block."""


def evaluate_grid(bench: Holdout, chosen: row_frontier.RowFormat, *, views_fitted: int) -> row_frontier.Frontier:
    """Bytes and distances of a grid of forms, the chosen one among them.

    Args:
        bench: on what.
        chosen: the form that the configuration asks for.
        views_fitted: how many the bench's basis was fitted on.
    """
    views = bench.logits_BC[:: -(-len(bench.logits_BC) // _MOST)]
    classes = views.shape[1]
    ks = sorted(k for k in {chosen.k, *KS} if k < classes)
    steps = sorted({chosen.step or STEPS[0], *STEPS})
    kept = {k: codec.pack(views, k) for k in ks}
    sizes = {k: _bytes(bench, rows, "flat") for k, rows in kept.items()}
    row = row_expansion.to_tensors(kept[ks[-1]])
    p_TBC = [(torch.from_numpy(views) / tau).softmax(dim=1) for tau in fidelity.TAUS]

    def point(form: row_frontier.RowFormat, size: int, tail: row_expansion.TailDecoder | None) -> row_frontier.Point:
        logq_BC = row_expansion.full_logp(row, classes, tail, form.k)
        return row_frontier.Point(form=form, bytes_a_view=round(size / len(views), 2), tv=_tv(p_TBC, logq_BC))

    points = [point(row_frontier.RowFormat(k=k), sizes[k], None) for k in ks]
    known = fittable_ranks(chosen.rank or RANKS[0], views_fitted, classes)
    for rank, step in itertools.product(known, steps):
        few = basis.Basis(bench.basis.mean_C, bench.basis.scale_C, bench.basis.components_RC[:rank])
        tail = schema.TransformTail(rank=rank, step=step, basis_sha256=few.sha256(step))
        coded = codec.Rows(tail_BR=basis.encode(few, views, step))
        size = _bytes(bench, coded, tail)
        row |= row_expansion.to_tensors(coded)
        sketch = row_expansion.tail_decoder(bench.recipe.model_copy(update={"tail": tail}), few)
        points += [point(row_frontier.RowFormat(k=k, rank=rank, step=step), sizes[k] + size, sketch) for k in ks]
    return row_frontier.Frontier(
        taus=fidelity.TAUS,
        views_fitted=views_fitted,
        views_measured=len(views),
        chosen=chosen,
        points=tuple(sorted(points, key=lambda each: (each.bytes_a_view, each.mean_tv))),
    )


def _bytes(bench: Holdout, rows: codec.Rows, tail: object) -> int:
    """Bytes of the objects that a store would keep of these arrays, block by block."""
    objects: dict[str, zarr.core.buffer.Buffer] = {}
    group = zarr_arrays.create_group(zarr.storage.MemoryStore(objects))
    k = rows.class_id_BK.shape[1] if rows.class_id_BK is not None else 1
    specs = layout.array_specs(bench.recipe.model_copy(update={"k": k, "tail": tail}), bench.rows_per_tar)
    for name, array_BX in rows.arrays().items():
        starts = range(0, len(array_BX), bench.rows_per_tar)
        stored = zarr_arrays.create_array(group, name, specs[name], tars=len(starts), aug_seeds=1, seeds_per_unit=1)
        for block, start in enumerate(starts):
            part = array_BX[start : start + bench.rows_per_tar]
            if specs[name].rows_last:
                stored[block, 0, :, : len(part)] = part.T
            else:
                stored[block, 0, : len(part)] = part
    return sum(len(data) for name, data in objects.items() if "/c/" in name)


def _tv(p_TBC: Sequence[torch.Tensor], logq_BC: torch.Tensor) -> tuple[float, ...]:
    distances = (
        (p_BC - (logq_BC / tau).softmax(dim=1)).abs().sum(dim=1).double().mean() / 2
        for tau, p_BC in zip(fidelity.TAUS, p_TBC, strict=True)
    )
    return tuple(round(float(distance), 5) for distance in distances)
