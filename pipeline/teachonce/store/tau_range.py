"""Which temperatures a cache carries: what its measured distances say of a tau and a k that a student asks for.

Apart from `fidelity`, which measures: what is read out of old numbers must not decide a unit's bytes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from teachonce.format import schema

BOUND = 0.1
"""Mean total variation up to which a tau counts as carried: so much of the teacher's mass stands on other classes."""

Fidelity = Mapping[str, dict[str, float]]
"""A store's `fidelity`: distances by `k=…,tau=…`."""


@dataclass(frozen=True, slots=True)
class Distortion:
    """How far rows are from the teacher's full softmax, as far as it was measured."""

    tv: float
    """Mean total variation; infinite where nothing was measured that bounds it."""
    k: int | None = None
    """Where it was measured: for the k asked, or for the next smaller one, which loses more."""
    taus: tuple[int, ...] = ()
    """At the tau asked, or at the neighbours of it, of which it is the worse."""


def distances_by_k(fidelity: Fidelity) -> dict[int, dict[int, dict[str, float]]]:
    """Distances by k and tau instead of by `k=…,tau=…`; k falls, tau rises."""
    found: dict[int, dict[int, dict[str, float]]] = {}
    for name, distances in fidelity.items():
        k, tau = (int(part.partition("=")[2]) for part in name.split(","))
        found.setdefault(k, {})[tau] = distances
    return {k: dict(sorted(found[k].items())) for k in sorted(found, reverse=True)}


def distortion_at(fidelity: Fidelity, k: int, tau: float) -> Distortion:
    """What a student loses that uses k classes of each row at tau.

    Args:
        fidelity: of the store.
        k: of the student.
        tau: of the student.
    """
    measured = distances_by_k(fidelity)
    nearest = max((known for known in measured if known <= k), default=None)
    if nearest is None:
        return Distortion(math.inf)
    at = measured[nearest]
    below, above = [known for known in at if known <= tau], [known for known in at if known >= tau]
    if not below or not above:
        return Distortion(math.inf, nearest)
    taus = tuple(sorted({below[-1], above[0]}))
    return Distortion(max(at[known]["tv_mean"] for known in taus), nearest, taus)


def carried_taus(fidelity: Fidelity, k: int, bound: float) -> tuple[int, ...]:
    """The measured taus at which rows of k classes stay within a bound of mean total variation."""
    return tuple(
        known for known, distances in distances_by_k(fidelity).get(k, {}).items() if distances["tv_mean"] <= bound
    )


def tau_warning(fidelity: Fidelity, recipe: schema.Recipe, *, k: int | None, tau: float, bound: float) -> str | None:
    """One line where a student asks for a tau that the cache does not carry within the bound; else None.

    Args:
        fidelity: of the store.
        recipe: of the store.
        k: classes of each row that the student uses; None for all that are kept.
        tau: of the student.
        bound: mean total variation that it accepts.
    """
    kept = k or recipe.k
    if kept == "all":
        return None
    found = distortion_at(fidelity, kept, tau)
    if found.tv <= bound:
        return None
    within = carried_taus(fidelity, found.k, bound) if found.k else ()
    carries = f"; within it the cache carries tau {', '.join(map(str, within))}" if within else ""
    return f"tau {tau:g} with k {kept}: {_what(found, distances_by_k(fidelity))}, max_tv is {bound:g}{carries}. {_CURE}"


_CURE = "Use a tau that it carries, more of its k, or a cache with a transform tail (configs/cache, tail)"


def _what(found: Distortion, measured: Mapping[int, Mapping[int, object]]) -> str:
    if found.k is None:
        return "how far rows are from the teacher's full softmax was not measured"
    if not found.taus:
        low, high = min(measured[found.k]), max(measured[found.k])
        return f"how far rows are from the teacher's full softmax was measured at tau {low} to {high} alone"
    at = " and ".join(map(str, found.taus))
    worse = f", the worse of tau {at}" if len(found.taus) > 1 else ""
    return f"rows are {found.tv:.3f} (mean total variation, measured for k {found.k}{worse}) from the full softmax"
