"""Measure row formats on the logits that a basis is fitted on: images of the fit and of the measurement apart.

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

from teachonce.core import progress
from teachonce.format import basis, codec, fidelity, layout, row_expansion, row_frontier, schema, zarr_arrays

KS = (5, 10, 20, 50, 100)
RANKS = (64, 128, 256, 512)
STEPS = (2.0, 3.0, 4.0)
_HOLD_OUT_EVERY = 4
_MAX_VIEWS = 1000
"""Views measured, however many there are: the stage's time for it is bounded."""


def hold_out_views(logits_SNC: basis.Floats) -> tuple[basis.Floats, basis.Floats]:
    """A tar's logits to fit on and to measure on, views behind one another: every fourth image is measured.

    The fit keeps most of them, since a basis of fewer views is worse than the one that the store will have.
    """
    # Whole images, not single views: two views of one image are alike, and one of them in the fit would flatter the
    # other.
    measured_N = np.arange(logits_SNC.shape[1]) % _HOLD_OUT_EVERY == _HOLD_OUT_EVERY - 1
    fit_BC, measured_BC = (
        logits_SNC[:, rows_N].reshape(-1, logits_SNC.shape[-1]) for rows_N in (~measured_N, measured_N)
    )
    return fit_BC, measured_BC


def fittable_ranks(chosen_rank: int, views: int, classes: int) -> list[int]:
    """The ranks of the grid that can be fitted on so many views."""
    return sorted(rank for rank in {chosen_rank, *RANKS} if rank < min(views, classes))


@dataclass(frozen=True, slots=True, eq=False)
class Holdout:
    """Logits that took no part in the fit, with the basis that did not see them."""

    logits_BC: basis.Floats
    """float32 (B, C), of images that the basis has not seen."""
    basis: basis.Basis
    """Of the greatest rank of the grid; its first components are the basis of a smaller rank."""
    recipe: schema.Recipe
    """Of the store; its k and tail are replaced by those of each point."""
    rows_per_tar: int
    """Rows of a compressed block: how well rows compress depends on how many lie together."""


def evaluate_grid(holdout: Holdout, chosen: row_frontier.RowFormat, *, views_fitted: int) -> row_frontier.Frontier:
    """Bytes and distances of a grid of row formats, the chosen one among them.

    Args:
        holdout: logits and basis.
        chosen: the format that the configuration asks for.
        views_fitted: how many the holdout's basis was fitted on.
    """
    # Evenly spaced, so that all tars take part; -(-a // b) rounds up.
    views = holdout.logits_BC[:: -(-len(holdout.logits_BC) // _MAX_VIEWS)]
    classes = views.shape[1]
    ks = sorted(k for k in {chosen.k, *KS} if k < classes)
    steps = sorted({chosen.step or STEPS[0], *STEPS})
    rows_by_k = {k: codec.pack(views, k) for k in ks}
    bytes_by_k = {k: _bytes(holdout, rows, "flat") for k, rows in rows_by_k.items()}
    row = row_expansion.to_tensors(rows_by_k[ks[-1]])
    p_TBC = [(torch.from_numpy(views) / tau).softmax(dim=1) for tau in fidelity.TAUS]

    def measure_point(
        row_format: row_frontier.RowFormat, size: int, tail: row_expansion.TailDecoder | None
    ) -> row_frontier.Point:
        logq_BC = row_expansion.full_logp(row, classes, tail, row_format.k)
        return row_frontier.Point(form=row_format, bytes_a_view=round(size / len(views), 2), tv=_tv(p_TBC, logq_BC))

    points = [measure_point(row_frontier.RowFormat(k=k), bytes_by_k[k], None) for k in ks]
    ranks = fittable_ranks(chosen.rank or RANKS[0], views_fitted, classes)
    tails = list(itertools.product(ranks, steps))
    for rank, step in progress.bar(tails, label="cache: row formats", total=len(tails), unit="format"):
        # Components come by falling variance: a smaller rank needs no fit of its own.
        part_basis = basis.Basis(holdout.basis.mean_C, holdout.basis.scale_C, holdout.basis.components_RC[:rank])
        tail = schema.TransformTail(rank=rank, step=step, basis_sha256=part_basis.sha256(step))
        tail_rows = codec.Rows(tail_BR=basis.encode(part_basis, views, step))
        size = _bytes(holdout, tail_rows, tail)
        row |= row_expansion.to_tensors(tail_rows)
        sketch = row_expansion.tail_decoder(holdout.recipe.model_copy(update={"tail": tail}), part_basis)
        points += [
            measure_point(row_frontier.RowFormat(k=k, rank=rank, step=step), bytes_by_k[k] + size, sketch) for k in ks
        ]
    return row_frontier.Frontier(
        taus=fidelity.TAUS,
        views_fitted=views_fitted,
        views_measured=len(views),
        chosen=chosen,
        points=tuple(sorted(points, key=lambda point: (point.bytes_a_view, point.mean_tv))),
    )


def _bytes(holdout: Holdout, rows: codec.Rows, tail: object) -> int:
    """Bytes of the objects that a store would keep of these arrays, block by block."""
    # Written by the store's own codecs into memory: an estimate from entropies would be off by what Blosc makes of it.
    objects: dict[str, zarr.core.buffer.Buffer] = {}
    group = zarr_arrays.create_group(zarr.storage.MemoryStore(objects))
    k = rows.class_id_BK.shape[1] if rows.class_id_BK is not None else 1
    specs = layout.array_specs(holdout.recipe.model_copy(update={"k": k, "tail": tail}), holdout.rows_per_tar)
    for name, array_BX in rows.arrays().items():
        starts = range(0, len(array_BX), holdout.rows_per_tar)
        stored = zarr_arrays.create_array(group, name, specs[name], tars=len(starts), aug_seeds=1, seeds_per_unit=1)
        for block, start in enumerate(starts):
            block_rows = array_BX[start : start + holdout.rows_per_tar]
            if specs[name].rows_last:
                stored[block, 0, :, : len(block_rows)] = block_rows.T
            else:
                stored[block, 0, : len(block_rows)] = block_rows
    return sum(len(data) for name, data in objects.items() if "/c/" in name)


def _tv(p_TBC: Sequence[torch.Tensor], logq_BC: torch.Tensor) -> tuple[float, ...]:
    distances = (
        (p_BC - (logq_BC / tau).softmax(dim=1)).abs().sum(dim=1).double().mean() / 2
        for tau, p_BC in zip(fidelity.TAUS, p_TBC, strict=True)
    )
    return tuple(round(float(distance), 5) for distance in distances)
