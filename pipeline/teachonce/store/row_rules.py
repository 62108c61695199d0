"""What must hold of every stored row, whoever wrote it: pure functions of arrays.

Shapes: R rows of a block, N of them with a sample, K kept classes, C classes.
"""

import numpy as np
import numpy.typing as npt

from teachonce.format import codec, layout, schema

_ROWS = 1024
"""Judged at a time, so that what is computed of them stays in the processor's caches."""


def block_violations(
    block: dict[str, codec.Array], specs: dict[str, layout.ArraySpec], nsamples: int, num_classes: int
) -> dict[str, str]:
    """What is wrong with the arrays of a block, by array name: with its rows, and with what lies behind them.

    Args:
        block: (R, …) by array name, as stored.
        specs: of the store's arrays.
        nsamples: N.
        num_classes: C.
    """
    faults: dict[str, str] = {}
    for name, array in block.items():
        if not _is_fill(array[nsamples:], specs[name].fill):
            faults[name] = "rows without a sample must hold the fill value"
        elif not codec.is_storable(array[:nsamples], specs[name].fill):
            faults[name] = "rows must be finite, and must not hold the fill value"
    # Of floating numbers only finite ones can be judged; class ids always can.
    judged = {name: array[:nsamples] for name, array in block.items() if name == "class_id" or name not in faults}
    return faults | row_violations(judged, num_classes)


def row_violations(rows: dict[str, codec.Array], num_classes: int) -> dict[str, str]:
    """What no teacher could have answered, by array name; empty where every row is one that a teacher could have given.

    Args:
        rows: (N, …) by array name, those of floating numbers finite.
        num_classes: C.
    """
    faults: dict[str, str] = {}
    for name in rows.keys() & {"logits", "lse"}:
        faults |= _magnitude_faults(name, rows[name])
    for first in range(0, len(rows.get("class_id", ())), _ROWS):
        faults = _class_id_faults(rows["class_id"][first : first + _ROWS], num_classes) or faults
    for first in range(0, len(rows.get("logp", ())), _ROWS):
        faults |= _logp_faults(rows["logp"][first : first + _ROWS])
    return faults


def _is_fill(padding: codec.Array, fill: float | str) -> bool:
    return bool((np.isnan(padding) if padding.dtype.kind == "f" else padding == fill).all())


def _magnitude_faults(name: str, array: codec.Array) -> dict[str, str]:
    greatest = max(float(array.max()), -float(array.min()))
    fault = f"numbers must be at most 2^100 in magnitude. Got {greatest:.3g}"
    return {name: fault} if greatest > schema.MAX_LOGIT else {}


def _class_id_faults(class_id_NK: codec.Array, num_classes: int) -> dict[str, str]:
    sorted_NK: npt.NDArray[np.unsignedinteger] = np.sort(class_id_NK, axis=1)
    if (sorted_NK[:, -1] >= num_classes).any():
        return {"class_id": f"class ids must be below the {num_classes} classes. Got {sorted_NK.max()}"}
    if _holds_along_rows(sorted_NK, np.not_equal):
        return {}
    count = int((sorted_NK[:, 1:] == sorted_NK[:, :-1]).any(axis=1).sum())
    return {"class_id": f"class ids of a row must differ. Got {count} rows with one twice"}


def _logp_faults(logp_NK: codec.Array) -> dict[str, str]:
    # As integers, as in `codec.is_storable`: the sign apart, a finite number is the greater the greater its bits are.
    magnitude_NK = logp_NK.view(np.uint16) & np.uint16(0x7FFF)
    if (logp_NK.view(np.int16) > 0).any() or not _holds_along_rows(magnitude_NK, np.greater_equal):
        return {"logp": "log-probabilities of a row must be at most 0 and fall"}
    # FORMAT.md: rounding to float16 can carry the kept mass past 1 by this much.
    limit = 1 + magnitude_NK.shape[1] * 2.0**-11 / np.e
    mass = float(_mass(magnitude_NK).max())
    return {"logp": f"the kept mass of a row must be at most {limit:.6f}. Got {mass:.6f}"} if mass > limit else {}


def _holds_along_rows(array_NK: codec.Array, compare: np.ufunc) -> bool:
    """Whether each number of a row compares so with the one before it."""
    # In one dimension: NumPy walks short rows one by one.
    flat = array_NK.ravel()
    holds = compare(flat[1:], flat[:-1])
    # Nothing need hold between the last number of a row and the first of the next.
    holds[array_NK.shape[1] - 1 :: array_NK.shape[1]] = True
    return bool(holds.all())


def _mass(magnitude_NK: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Sum of exp(−magnitude) of each row; magnitudes as the bits of float16."""
    # A float16's bits are a float32's, 13 places up, but for the bias of the exponent: NumPy's own conversion takes
    # longer than all else here.
    wide_NK = (magnitude_NK.astype(np.uint32) << np.uint32(13)).view(np.float32) * np.float32(-(2.0**112))
    mass_N: npt.NDArray[np.float32] = np.exp(wide_NK) @ np.ones(wide_NK.shape[1], np.float32)
    return mass_N
