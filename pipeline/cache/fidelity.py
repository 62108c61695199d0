"""How far a stored row is from the teacher's full softmax, measured while the full logits are in hand.

Total variation TV(p, q) = ½ Σ|p − q| and KL(p ‖ q) in nats, p the teacher's softmax at tau and q the row's.
Sums and histograms add up over units, so that growth needs no second look at old logits.

Shapes: B views, C classes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from pipeline.cache import codec, schema, target

TAUS = (1, 2, 3, 5, 10)
EDGES = np.geomspace(1e-9, 1e2, 129)
"""Histogram edges, 22 % apart: a percentile is told to that accuracy, rounded up."""


def smaller(k: int) -> tuple[int, ...]:
    """The k measured for a cache that keeps k: itself and some prefixes of it."""
    return tuple(sorted({max(1, k // part) for part in (1, 2, 5)}, reverse=True))


def measure(
    logits_BC: npt.NDArray[np.float32], rows: codec.Rows, tail: target.Sketch | None = None
) -> dict[str, schema.Distances]:
    """Distances of rows to the logits they were packed from, by `k=…,tau=…`; empty where rows are whole."""
    if rows.class_id_BK is None or rows.logp_BK is None:
        return {}
    logits = torch.from_numpy(logits_BC)
    row = target.tensors(rows)
    found = {}
    full = {tau: (logits / tau).log_softmax(dim=1) for tau in TAUS}
    for k in smaller(rows.logp_BK.shape[1]):
        kept = target.full(row, logits.shape[1], tail, k)
        for tau, logp_BC in full.items():
            found[f"k={k},tau={tau}"] = _distances(logp_BC, (kept / tau).log_softmax(dim=1))
    return found


def _distances(logp_BC: torch.Tensor, logq_BC: torch.Tensor) -> schema.Distances:
    p_BC = logp_BC.exp()
    tv_B = (p_BC - logq_BC.exp()).abs().sum(dim=1) / 2
    kl_B = (p_BC * (logp_BC - logq_BC)).sum(dim=1).clamp(min=0)
    return schema.Distances(
        views=len(tv_B),
        tv=float(tv_B.double().sum()),
        kl=float(kl_B.double().sum()),
        tv_bins=_bins(tv_B.numpy()),
        kl_bins=_bins(kl_B.numpy()),
    )


def _bins(values_B: npt.NDArray[np.float32]) -> dict[str, int]:
    numbers, counts = np.unique(np.searchsorted(EDGES, values_B), return_counts=True)
    return {str(number): int(count) for number, count in zip(numbers, counts, strict=True)}


def add(parts: Iterable[Mapping[str, schema.Distances]]) -> dict[str, schema.Distances]:
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


def summary(total: Mapping[str, schema.Distances]) -> dict[str, dict[str, float]]:
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
