"""How far stored rows are from the teacher's full softmax, in numbers that `fidelity_measurement` took.

Sums and histograms add up over units, so that growth needs no second look at old logits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from teachonce.format import schema

TAUS = (1, 2, 3, 5, 10)
EDGES = np.geomspace(1e-9, 1e2, 129)
"""Histogram edges, 22 % apart: a percentile is told to that accuracy, rounded up."""


def measured_ks(k: int) -> tuple[int, ...]:
    """The k measured for a cache that keeps k: itself and some prefixes of it."""
    return tuple(sorted({max(1, k // part) for part in (1, 2, 5)}, reverse=True))


def sum_distances(parts: Iterable[Mapping[str, schema.Distances]]) -> dict[str, schema.Distances]:
    """The sum of distances measured apart."""
    total: dict[str, schema.Distances] = {}
    for part in parts:
        for name, more in part.items():
            total[name] = _plus(total[name], more) if name in total else more
    return total


def _plus(left: schema.Distances, right: schema.Distances) -> schema.Distances:
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
    reached = np.cumsum([bins[str(number)] for number in numbers])
    first = int(np.searchsorted(reached, share * reached[-1]))
    return float(EDGES[min(numbers[first], len(EDGES) - 1)])
