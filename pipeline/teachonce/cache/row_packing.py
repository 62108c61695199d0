"""What is kept of a batch's logits, and the plain way there: one batch after the other, packed by NumPy.

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
    """How a unit's logits are packed."""

    k: int | Literal["all"]
    """Classes that a row keeps."""
    num_classes: int
    """C."""
    tail: codec.TailCoding | None
    """How the others are coded."""
    sketch: row_expansion.TailDecoder | None
    """The same tail, as a reader of rows has it."""
    first_seed: int
    """The unit's first aug seed, under which rows are measured: a sample large enough, which leaves the forward passes
    their time."""
    tar: str
    """Its name, for messages."""

    def measured(self, batch: rendered_batches.ViewBatch) -> slice | None:
        """Where in a batch the N views are that are measured; None where there are none, or rows are whole."""
        places = [place for place, (_, aug_seed) in enumerate(batch.keys()) if aug_seed == self.first_seed]
        if self.k == "all" or not places:
            return None
        # Evenly spaced: a batch has the atoms of the first block of seeds, all of as many seeds, at its front.
        found = slice(places[0], places[-1] + 1, places[1] - places[0] if len(places) > 1 else 1)
        if list(range(len(batch.views)))[found] != places:
            raise RuntimeError("the views of an aug seed are not evenly spaced")
        return found


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """What is kept of a batch."""

    rows: codec.Rows
    """B rows."""
    distances_DXN: npt.NDArray[np.float32] | None
    """float32 (D, 2, N): from `fidelity_measurement.row_distances`."""

    def likeliest(self) -> npt.NDArray[np.generic]:
        """Integer (B,): the class of the greatest logit, of equal ones the first."""
        if self.rows.logits_BC is not None:
            return np.asarray(self.rows.logits_BC.argmax(axis=1))
        if self.rows.class_id_BK is None:
            raise TypeError("rows hold neither logits nor kept classes")
        return self.rows.class_id_BK[:, 0]


class SequentialForward:
    """A teacher whose answers are packed on the CPU, in turn."""

    ahead = 1
    """Batches to be rendered meanwhile."""
    buffer = None
    """Each batch has its own memory."""

    def __init__(self, teacher: predictor.Predictor, form: Packing) -> None:
        self._teacher = teacher
        self._form = form

    def answers(
        self, batches: Iterator[rendered_batches.ViewBatch]
    ) -> Iterator[tuple[rendered_batches.ViewBatch, PackedBatch]]:
        """Each batch with its packed rows.

        Raises:
            NumericsError: a logit is not finite, or beyond what a row may hold.
        """
        for batch in batches:
            logits_BC = self._teacher.logits(batch.views)
            # So that NaN is none of them.
            finite_B = np.asarray((np.abs(logits_BC) <= schema.MAX_LOGIT).all(axis=1))
            refuse_non_finite(finite_B, batch, self._form.tar)
            rows = codec.pack(logits_BC, self._form.k, self._form.tail)
            yield batch, PackedBatch(rows, self._distances(batch, logits_BC, rows))

    def _distances(
        self, batch: rendered_batches.ViewBatch, logits_BC: npt.NDArray[np.float32], rows: codec.Rows
    ) -> npt.NDArray[np.float32] | None:
        places = self._form.measured(batch)
        if places is None:
            return None
        first = codec.rows_from_arrays({name: array[places].copy() for name, array in rows.arrays().items()})
        logits_NC = torch.from_numpy(logits_BC[places].copy())
        return fidelity_measurement.row_distances(logits_NC, row_expansion.to_tensors(first), self._form.sketch).numpy()


def refuse_non_finite(finite_B: npt.NDArray[np.bool_], batch: rendered_batches.ViewBatch, tar: str) -> None:
    """End here where a view's logits are not all finite.

    Args:
        finite_B: bool (B,): are a view's logits, and none beyond what a row may hold?
        batch: the views.
        tar: where they are from.

    Raises:
        NumericsError: they are not; the message names the first.
    """
    bad = np.flatnonzero(~finite_B)
    if bad.size:
        sample, aug_seed = batch.keys()[int(bad[0])]
        raise errors.NumericsError(
            tar,
            f"the teacher's logits of {sample.key!r}, aug seed {aug_seed}, are not finite, or "
            f"beyond 2^100 ({bad.size} views of the batch)",
            "Try precision: float32, or check the teacher's weights",
        )
