"""How far stored rows are from the teacher's full softmax, in numbers that `fidelity_measurement` took.

Sums and histograms add up over units, so that growth needs no second look at old logits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from teachonce.format import schema

TAUS = (1, 2, 3, 5, 10)
# The same for ever: counts are stored, and those of a unit made today are added to those of years ago.
EDGES = np.geomspace(1e-9, 1e2, 129)
"""Histogram edges, 22 % apart: a percentile is told to that accuracy, rounded up."""


def measured_ks(k: int) -> tuple[int, ...]:
    """The k measured for a cache that keeps k: itself and some prefixes of it."""
    # Prefixes too, since a student may ask for a smaller k: what that loses can be measured only while the logits are
    # here.
    return tuple(sorted({max(1, k // part) for part in (1, 2, 5)}, reverse=True))


def sum_distances(measurements: Iterable[Mapping[str, schema.Distances]]) -> dict[str, schema.Distances]:
    """Sums and counts over several measurements, for instance of units, by `k=…,tau=…`."""
    total: dict[str, schema.Distances] = {}
    for by_name in measurements:
        for name, distances in by_name.items():
            total[name] = _add(total[name], distances) if name in total else distances
    return total


def _add(left: schema.Distances, right: schema.Distances) -> schema.Distances:
    return schema.Distances(
        views=left.views + right.views,
        tv=left.tv + right.tv,
        kl=left.kl + right.kl,
        tv_bins=dict(Counter(left.tv_bins) + Counter(right.tv_bins)),
        kl_bins=dict(Counter(left.kl_bins) + Counter(right.kl_bins)),
    )


def distance_statistics(total: Mapping[str, schema.Distances]) -> dict[str, dict[str, float]]:
    """Mean and 99th percentile of TV and KL by `k=…,tau=…`, in one order wherever the parts came from."""
    return {
        name: {
            "tv_mean": part.tv / part.views,
            "tv_p99": _percentile(part.tv_bins, 0.99),
            "kl_mean": part.kl / part.views,
            "kl_p99": _percentile(part.kl_bins, 0.99),
        }
        for name, part in sorted(total.items(), key=_by_k_and_tau)
    }


def _by_k_and_tau(item: tuple[str, object]) -> tuple[int, int]:
    k, tau = (int(part.split("=")[1]) for part in item[0].split(","))
    return -k, tau


def _percentile(bins: Mapping[str, int], share: float) -> float:
    numbers = sorted(int(number) for number in bins)
    cumulative = np.cumsum([bins[str(number)] for number in numbers])
    place = int(np.searchsorted(cumulative, share * cumulative[-1]))
    # The upper edge: what is told is never smaller than what was measured.
    return float(EDGES[min(numbers[place], len(EDGES) - 1)])
