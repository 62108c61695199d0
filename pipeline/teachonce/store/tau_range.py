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
    by_k: dict[int, dict[int, dict[str, float]]] = {}
    for name, distances in fidelity.items():
        k, tau = (int(part.partition("=")[2]) for part in name.split(","))
        by_k.setdefault(k, {})[tau] = distances
    return {k: dict(sorted(by_k[k].items())) for k in sorted(by_k, reverse=True)}


def distortion_at(fidelity: Fidelity, k: int, tau: float) -> Distortion:
    """What a student loses that uses k classes of each row at tau.

    Args:
        fidelity: the store's.
        k: classes of each row that the student uses.
        tau: the student's temperature.
    """
    by_k = distances_by_k(fidelity)
    # Fewer classes lose more, so that the next smaller k bounds what was not measured; a larger one would flatter.
    nearest = max((candidate for candidate in by_k if candidate <= k), default=None)
    if nearest is None:
        return Distortion(math.inf)
    by_tau = by_k[nearest]
    below, above = (
        [candidate for candidate in by_tau if candidate <= tau],
        [candidate for candidate in by_tau if candidate >= tau],
    )
    if not below or not above:
        return Distortion(math.inf, nearest)
    # Total variation rises and falls with tau: between two taus, the worse of them is what can be promised.
    taus = tuple(sorted({below[-1], above[0]}))
    return Distortion(max(by_tau[candidate]["tv_mean"] for candidate in taus), nearest, taus)


def carried_taus(fidelity: Fidelity, k: int, bound: float) -> tuple[int, ...]:
    """The measured taus at which rows of k classes stay within a bound of mean total variation.

    Args:
        fidelity: the store's.
        k: a count of classes that was measured.
        bound: of mean total variation.
    """
    return tuple(tau for tau, distances in distances_by_k(fidelity).get(k, {}).items() if distances["tv_mean"] <= bound)


def tau_warning(fidelity: Fidelity, recipe: schema.Recipe, *, k: int | None, tau: float, bound: float) -> str | None:
    """One line where a student asks for a tau that the cache does not carry within the bound; else None.

    Args:
        fidelity: the store's.
        recipe: the store's.
        k: classes of each row that the student uses; None for all that are kept.
        tau: the student's temperature.
        bound: mean total variation that it accepts.
    """
    row_k = k or recipe.k
    if row_k == "all":
        return None
    distortion = distortion_at(fidelity, row_k, tau)
    if distortion.tv <= bound:
        return None
    taus = carried_taus(fidelity, distortion.k, bound) if distortion.k else ()
    carries = f"; within it the cache carries tau {', '.join(map(str, taus))}" if taus else ""
    loss = _describe(distortion, distances_by_k(fidelity))
    return f"tau {tau:g} with k {row_k}: {loss}, max_tv is {bound:g}{carries}. {_CURE}"


_CURE = "Use a tau that it carries, more of its k, or a cache with a transform tail (configs/cache, tail)"


def _describe(distortion: Distortion, by_k: Mapping[int, Mapping[int, object]]) -> str:
    if distortion.k is None:
        return "how far rows are from the teacher's full softmax was not measured"
    if not distortion.taus:
        low, high = min(by_k[distortion.k]), max(by_k[distortion.k])
        return f"how far rows are from the teacher's full softmax was measured at tau {low} to {high} alone"
    taus_text = " and ".join(map(str, distortion.taus))
    worse = f", the worse of tau {taus_text}" if len(distortion.taus) > 1 else ""
    measured = f"mean total variation, measured for k {distortion.k}{worse}"
    return f"rows are {distortion.tv:.3f} ({measured}) from the full softmax"
