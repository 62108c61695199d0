"""What must hold of every stored row, whoever wrote it: pure functions of arrays.

Shapes: R rows of room in a block, N of them with a sample, K kept classes, C classes.
"""

import numpy as np
import numpy.typing as npt

from teachonce.format import codec, layout, schema


def unlawful(
    found: dict[str, codec.Array], specs: dict[str, layout.ArraySpec], nsamples: int, recipe: schema.Recipe
) -> dict[str, str]:
    """What is wrong with the arrays of a block, by array name; empty where every row is one a teacher could have given.

    Args:
        found: (R, …) by array name, as stored.
        specs: of the store's arrays.
        nsamples: N.
        recipe: what a row means.
    """
    wrong: dict[str, str] = {}
    for name, array in found.items():
        if not _blank(array[nsamples:], specs[name].fill):
            wrong[name] = "rows without a sample must hold the fill value"
        elif not codec.valid(array[:nsamples], specs[name].fill):
            wrong[name] = "rows must be finite, and must not hold the fill value"
    if "class_id" in found:
        wrong |= _classes(found["class_id"][:nsamples], recipe.teacher.num_classes)
    if "logp" in found and "logp" not in wrong:
        wrong |= _logp(found["logp"][:nsamples])
    return wrong


def _blank(padding: codec.Array, fill: float | str) -> bool:
    return bool((np.isnan(padding) if padding.dtype.kind == "f" else padding == fill).all())


def _classes(class_id_NK: codec.Array, num_classes: int) -> dict[str, str]:
    sorted_NK: npt.NDArray[np.unsignedinteger] = np.sort(class_id_NK, axis=1)
    if (sorted_NK[:, -1] >= num_classes).any():
        return {"class_id": f"class ids must be below the {num_classes} classes. Got {sorted_NK.max()}"}
    twice = int((sorted_NK[:, 1:] == sorted_NK[:, :-1]).any(axis=1).sum())
    return {"class_id": f"class ids of a row must differ. Got {twice} rows with one twice"} if twice else {}


def _logp(logp_NK: codec.Array) -> dict[str, str]:
    wide_NK = logp_NK.astype(np.float32)
    if (wide_NK[:, 0] > 0).any() or (wide_NK[:, 1:] > wide_NK[:, :-1]).any():
        return {"logp": "log-probabilities of a row must be at most 0 and fall"}
    # FORMAT.md: rounding to float16 can carry the kept mass past 1 by this much.
    most = 1 + wide_NK.shape[1] * 2.0**-11 / np.e
    mass = float(np.exp(wide_NK).sum(axis=1, dtype=np.float64).max())
    return {"logp": f"the kept mass of a row must be at most {most:.6f}. Got {mass:.6f}"} if mass > most else {}
