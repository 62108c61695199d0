"""Logits into a row, and back: pure functions of arrays.

A row keeps log-probabilities at tau 1 of the *full* softmax, so that any temperature can be chosen afterwards: softmax
ignores a shift, hence softmax(logp / tau) is softmax(logits / tau) over the kept classes.

Shapes: B views, C classes, K kept classes, R coefficients of a transform tail.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from teachonce.format import basis, schema

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as stored. Either `logits_BC` is there, or the next three are, with `tail_BR` where the tail is coded."""

    logits_BC: npt.NDArray[np.float32] | None = None
    """float32 (B, C): raw logits in class order (`k: all`)."""
    class_id_BK: npt.NDArray[np.unsignedinteger] | None = None
    """uint16 or uint32 (B, K): the likeliest classes by falling logit, ties by lower id."""
    logp_BK: npt.NDArray[np.float16] | None = None
    """float16 (B, K): natural-log probabilities at tau 1."""
    lse_B: npt.NDArray[np.float32] | None = None
    """float32 (B,): log-sum-exp of the logits; logit = logp + lse."""
    tail_BR: npt.NDArray[np.uint8] | None = None
    """uint8 (B, R): coefficients of the logits on the store's basis, in quantiser steps, folded (`basis.encode`)."""

    def arrays(self) -> dict[str, Array]:
        """The arrays by their name in a store."""
        named = {
            "logits": self.logits_BC,
            "class_id": self.class_id_BK,
            "logp": self.logp_BK,
            "lse": self.lse_B,
            "tail": self.tail_BR,
        }
        return {name: array for name, array in named.items() if array is not None}


def rows_from_arrays(arrays: dict[str, Array]) -> Rows:
    """Rows from arrays by their name in a store; the inverse of `Rows.arrays`."""
    return Rows(
        logits_BC=arrays.get("logits"),  # type: ignore[arg-type]
        class_id_BK=arrays.get("class_id"),  # type: ignore[arg-type]
        logp_BK=arrays.get("logp"),  # type: ignore[arg-type]
        lse_B=arrays.get("lse"),  # type: ignore[arg-type]
        tail_BR=arrays.get("tail"),  # type: ignore[arg-type]
    )


def is_storable(array: Array, limit: float | str) -> bool:
    """Whether a row can hold these numbers: finite ones, or integers below a limit, for instance the fill value."""
    if array.dtype.kind != "f":
        return bool(array.max(initial=0) < limit)
    # As integers, whose order is that of the numbers once the sign is off: NumPy's isfinite takes ten times as long for
    # float16, and every block is asked.
    unsigned = np.dtype(f"u{array.dtype.itemsize}")
    infinity = np.array(np.inf, array.dtype).view(unsigned)
    return bool(((array.view(unsigned) & np.iinfo(unsigned).max >> 1) < infinity).all())


@dataclass(frozen=True, slots=True)
class TailCoding:
    """What the coefficients of a transform tail are counted in."""

    basis: basis.Basis
    """Mean and components that the store holds once."""
    step: float
    """Size of a quantiser step, in scaled nats."""


def pack(logits_BC: npt.NDArray[np.float32], k: int | Literal["all"], tail: TailCoding | None = None) -> Rows:
    """Logits into rows: the likeliest classes and what stands for the others.

    Args:
        logits_BC: float32 (B, C), finite.
        k: how many classes to keep, below C; or `all`.
        tail: how the others are coded; None for a flat tail.
    """
    if k == "all":
        return Rows(logits_BC=logits_BC)
    # Stable, so that of equal logits the lower id comes first: a row is of its logits alone, not of a sort's whim.
    class_id_BK = np.argsort(-logits_BC, axis=1, kind="stable")[:, :k]
    # In float64: (x − lse) in float32 would lose what float16 can still hold of the small ones.
    wide_BC = logits_BC.astype(np.float64)
    top_B1 = wide_BC.max(axis=1, keepdims=True)
    shifted_BC = wide_BC - top_B1
    log_sum_B1 = np.log(np.exp(shifted_BC).sum(axis=1, keepdims=True))
    # Not x − lse: where logits are huge, lse has no digit left for the logarithm of the sum.
    logp_BK = np.take_along_axis(shifted_BC, class_id_BK, axis=1) - log_sum_B1
    # A class far below the others would be −inf in float16, which readers refuse.
    lowest = float(np.finfo(np.float16).min)
    return Rows(
        class_id_BK=class_id_BK.astype(schema.class_dtype(logits_BC.shape[1])),
        logp_BK=np.maximum(logp_BK, lowest).astype(np.float16),
        lse_B=(top_B1 + log_sum_B1)[:, 0].astype(np.float32),
        tail_BR=basis.encode(tail.basis, logits_BC, tail.step) if tail else None,
    )
