"""The basis of a transform tail: components of log-probabilities, and a row's coefficients on them.

As an image codec does it: few components hold most of the variance, and one quantiser step for all of them lets the
entropy coder behind spend its bits where the variance is.

Shapes: B views, C classes, R rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.core import hashing

Floats = npt.NDArray[np.float32]
LIMIT = 127
"""Coefficients are clipped to ± this many steps."""
_MEAN_RANGE = -(2.0**32), 0.0
_SCALE_RANGE = 2.0**-10, 2.0**10
_TOLERANCE = 2.0**-8


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Log-probabilities at tau 1 ≈ mean + coefficients · components."""

    mean_C: Floats
    """float32 (C,): mean log-probability of each class, over the rows of the fit."""
    scale_C: Floats
    """float32 (C,): how much a class's error weighs; log-probabilities scaled by it have orthonormal components."""
    components_RC: Floats
    """float32 (R, C), by falling variance."""

    def arrays(self) -> dict[str, Floats]:
        """The arrays by their name in a store."""
        return {"tail_mean": self.mean_C, "tail_scale": self.scale_C, "tail_components": self.components_RC}

    def sha256(self, step: float) -> str:
        """SHA-256 of the step as a float64 and the arrays' bytes in the order of `arrays`, all little-endian."""
        # In one byte order and layout, whatever the machine's: the digest is part of a recipe.
        arrays = [np.ascontiguousarray(array, "<f4").tobytes() for array in self.arrays().values()]
        return hashing.sha256(b"".join([np.array(step, "<f8").tobytes(), *arrays]))


def from_arrays(arrays: Mapping[str, npt.NDArray[np.generic]]) -> Basis:
    """A basis from arrays by their name in a store; the inverse of `Basis.arrays`."""
    parts = [np.asarray(arrays[name], np.float32) for name in ("tail_mean", "tail_scale", "tail_components")]
    return Basis(*parts)


def find_faults(basis: Basis) -> dict[str, str]:
    """What no fit could have given, by array name: a digest only says that nothing was changed since it was taken.

    Coefficients on other components than orthonormal ones are not those of the rows, and no comparison of coefficients
    alone would show it.
    """
    faults: dict[str, str] = {}
    for name, array, (least, most) in (
        ("tail_mean", basis.mean_C, _MEAN_RANGE),
        ("tail_scale", basis.scale_C, _SCALE_RANGE),
    ):
        # Asked this way round, so that NaN, which compares as false, is a fault.
        if not ((array >= least) & (array <= most)).all():
            faults[name] = (
                f"must hold numbers from {least:.15g} to {most:.15g}. Got {array.min():.6g} to {array.max():.6g}"
            )
    if faults:
        return faults
    with np.errstate(over="ignore", invalid="ignore"):
        scaled_RC = basis.components_RC * basis.scale_C
        deviation = float(np.abs(scaled_RC @ scaled_RC.T - np.eye(len(scaled_RC), dtype=np.float32)).max())
    # The same: components that are no numbers give NaN here.
    if not deviation <= _TOLERANCE:
        fault = (
            f"components times tail_scale must be orthonormal to {_TOLERANCE:.6g}. Got products off by {deviation:.6g}"
        )
        return {"tail_components": fault}
    return {}


def encode(basis: Basis, logits_BC: Floats, step: float) -> npt.NDArray[np.uint8]:
    """Coefficients of logits in whole steps, folded: uint8 (B, R), 0, −1, 1, −2, 2 … 127 as 0, 1, 2, 3, 4 … 254.

    Two's complement would flip all eight bits of a small coefficient with its sign, and cost the bit-shuffled block a
    fifth more bytes, or more.

    Args:
        basis: with the components, from the fit.
        logits_BC: float32 (B, C), finite.
        step: size of a quantiser step, in scaled nats.
    """
    scale_C = basis.scale_C.astype(np.float64)
    # The inverse of orthonormal components is their transpose.
    scaled_BC = (log_softmax(logits_BC) - basis.mean_C) * scale_C
    coefficients_BR = scaled_BC @ (basis.components_RC * scale_C).T
    # Clipped, to fit a byte. rint takes halves to the even number, as torch does: host and device agree.
    steps_BR = np.clip(np.rint(coefficients_BR / step), -LIMIT, LIMIT)
    folded_BR: npt.NDArray[np.uint8] = (2 * np.abs(steps_BR) - (steps_BR < 0)).astype(np.uint8)
    return folded_BR


def unfold(folded_BR: npt.NDArray[np.generic]) -> npt.NDArray[np.int16]:
    """Coefficients in whole steps from their stored form, uint8 (B, R): int16 (B, R)."""
    folded = folded_BR.astype(np.int16)
    steps_BR: npt.NDArray[np.int16] = np.where(folded % 2, -1, 1).astype(np.int16) * ((folded + 1) // 2)
    return steps_BR


def log_softmax(logits_BC: Floats) -> npt.NDArray[np.float64]:
    """Log-probabilities at tau 1: float64 (B, C)."""
    wide_BC = logits_BC.astype(np.float64)
    # Softmax ignores a shift, and without this one exp would overflow.
    wide_BC -= wide_BC.max(axis=1, keepdims=True)
    logp_BC: npt.NDArray[np.float64] = wide_BC - np.log(np.exp(wide_BC).sum(axis=1, keepdims=True))
    return logp_BC
