"""Logits of a batch into the rows that are stored, by the plain path: one batch after the other, packed by NumPy.

Shapes: B views of a batch, N those of them that are measured, C classes, D pairs of k and tau, X TV and KL.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from teachonce.cache import rendered_batches
from teachonce.core import errors
from teachonce.format import codec, fidelity_measurement, row_expansion, schema
from teachonce.teacher import predictor


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """What the packing of a unit's logits needs to know, the same for all of its batches."""

    k: int | Literal["all"]
    """Classes that a row keeps; `all` keeps raw logits."""
    num_classes: int
    """Length C of a row of logits."""
    tail: codec.TailCoding | None
    """How the other classes are coded; None for a flat tail."""
    sketch: row_expansion.TailDecoder | None
    """Decodes that tail as a reader does, to measure what rows lose; None for a flat tail."""
    first_seed: int
    """The unit's first aug seed, under which rows are measured: a sample large enough, which leaves the forward passes
    their time."""
    tar: str
    """URL of the unit's tar, for messages."""

    def measured(self, batch: rendered_batches.ViewBatch) -> slice | None:
        """Positions in a batch of the N views that are measured; None where there are none, or rows are whole."""
        positions = [position for position, (_, aug_seed) in enumerate(batch.keys()) if aug_seed == self.first_seed]
        if self.k == "all" or not positions:
            return None
        # Evenly spaced: a batch has the groups of the first block of seeds, all of as many seeds, at its front. A slice
        # costs nothing; on a device, a list of positions would have to be copied there first, which waits.
        spaced = slice(positions[0], positions[-1] + 1, positions[1] - positions[0] if len(positions) > 1 else 1)
        if list(range(len(batch.views)))[spaced] != positions:
            raise RuntimeError("the views of an aug seed are not evenly spaced")
        return spaced


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch as it will be stored, with how far it is from its logits."""

    rows: codec.Rows
    """B rows, as they will be stored."""
    distances_DXN: npt.NDArray[np.float32] | None
    """float32 (D, 2, N): what N of them lose, by `fidelity_measurement.row_distances`; None where none is measured."""

    def likeliest(self) -> npt.NDArray[np.generic]:
        """Integer (B,): the class of the greatest logit, of equal ones the first."""
        # Kept classes are sorted by falling logit, ties by lower id: the first is what argmax would give.
        if self.rows.logits_BC is not None:
            return np.asarray(self.rows.logits_BC.argmax(axis=1))
        if self.rows.class_id_BK is None:
            raise TypeError("rows hold neither logits nor kept classes")
        return self.rows.class_id_BK[:, 0]


class SequentialForward:
    """A teacher whose logits are packed on the CPU, one batch after the other."""

    ahead = 1
    """Batches to be rendered while one is forwarded."""
    buffer = None
    """None: each batch has memory of its own."""

    def __init__(self, teacher: predictor.Predictor, packing: Packing) -> None:
        self._teacher = teacher
        self._packing = packing

    def pack_batches(
        self, batches: Iterator[rendered_batches.ViewBatch]
    ) -> Iterator[tuple[rendered_batches.ViewBatch, PackedBatch]]:
        """Each batch with its packed rows.

        Raises:
            NumericsError: a logit is not finite, or beyond what a row may hold.
        """
        for batch in batches:
            logits_BC = self._teacher.logits(batch.views)
            # Asked in this direction, since every comparison with NaN is false: NaN is refused too.
            finite_B = np.asarray((np.abs(logits_BC) <= schema.MAX_LOGIT).all(axis=1))
            refuse_non_finite(finite_B, batch, self._packing.tar)
            rows = codec.pack(logits_BC, self._packing.k, self._packing.tail)
            yield batch, PackedBatch(rows, self._distances(batch, logits_BC, rows))

    def _distances(
        self, batch: rendered_batches.ViewBatch, logits_BC: npt.NDArray[np.float32], rows: codec.Rows
    ) -> npt.NDArray[np.float32] | None:
        positions = self._packing.measured(batch)
        if positions is None:
            return None
        measured_rows = codec.rows_from_arrays({name: array[positions].copy() for name, array in rows.arrays().items()})
        logits_NC = torch.from_numpy(logits_BC[positions].copy())
        return fidelity_measurement.row_distances(
            logits_NC, row_expansion.to_tensors(measured_rows), self._packing.sketch
        ).numpy()


def refuse_non_finite(finite_B: npt.NDArray[np.bool_], batch: rendered_batches.ViewBatch, tar: str) -> None:
    """End here where a view's logits are not all finite.

    Args:
        finite_B: bool (B,): whether all logits of a view are finite, and none is beyond what a row may hold.
        batch: the views.
        tar: URL of their tar, for the message.

    Raises:
        NumericsError: a view's are not; the message names the first one.
    """
    bad_rows = np.flatnonzero(~finite_B)
    if bad_rows.size:
        sample, aug_seed = batch.keys()[int(bad_rows[0])]
        raise errors.NumericsError(
            tar,
            f"the teacher's logits of {sample.key!r}, aug seed {aug_seed}, are not finite, or "
            f"beyond 2^100 ({bad_rows.size} views of the batch)",
            "Try precision: float32, or check the teacher's weights",
        )
