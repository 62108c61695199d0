"""How far a stored row is from the teacher's full softmax, measured while the full logits are in hand.

Total variation TV(p, q) = ½ Σ|p − q| and KL(p ‖ q) in nats, p the teacher's softmax at tau and q the row's.
Sums and histograms add up over units, so that growth needs no second look at old logits.

Shapes: B views, C classes, D pairs of k and tau.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from teachonce.format import codec, row_targets, schema

TAUS = (1, 2, 3, 5, 10)
EDGES = np.geomspace(1e-9, 1e2, 129)
"""Histogram edges, 22 % apart: a percentile is told to that accuracy, rounded up."""


def smaller(k: int) -> tuple[int, ...]:
    """The k measured for a cache that keeps k: itself and some prefixes of it."""
    return tuple(sorted({max(1, k // part) for part in (1, 2, 5)}, reverse=True))


def measure(
    logits_BC: npt.NDArray[np.float32], rows: codec.Rows, tail: row_targets.Sketch | None = None
) -> dict[str, schema.Distances]:
    """Distances of rows to the logits they were packed from, by `k=…,tau=…`; empty where rows are whole."""
    if rows.logp_BK is None:
        return {}
    found = distances(torch.from_numpy(logits_BC), row_targets.tensors(rows), tail)
    return collect(found.numpy(), rows.logp_BK.shape[1])


def distances(
    logits_BC: torch.Tensor, row: Mapping[str, torch.Tensor], tail: row_targets.Sketch | None
) -> torch.Tensor:
    """Distance of each row to the logits it was packed from, without waiting for the device.

    Args:
        logits_BC: float32 (B, C).
        row: kept classes, as `row_targets.full` takes them, on the device of the logits.
        tail: on that device; None for a flat tail.

    Returns:
        float32 (D, 2, B): total variation and KL of each view, for each `k=…,tau=…` in the order of `collect`.
    """
    full = [(logits_BC / tau).log_softmax(dim=1) for tau in TAUS]
    found = []
    for k in smaller(row["logp"].shape[1]):
        kept_BC = row_targets.full(row, logits_BC.shape[1], tail, k)
        for tau, logp_BC in zip(TAUS, full, strict=True):
            found.append(_distances(logp_BC, (kept_BC / tau).log_softmax(dim=1)))
    return torch.stack(found)


def _distances(logp_BC: torch.Tensor, logq_BC: torch.Tensor) -> torch.Tensor:
    p_BC = logp_BC.exp()
    tv_B = (p_BC - logq_BC.exp()).abs().sum(dim=1) / 2
    kl_B = (p_BC * (logp_BC - logq_BC)).sum(dim=1).clamp(min=0)
    return torch.stack([tv_B, kl_B])


def collect(distances_DXB: npt.NDArray[np.float32], k: int) -> dict[str, schema.Distances]:
    """Sums and counts of what `distances` measured of rows of k classes, by `k=…,tau=…`; X is TV and KL."""
    names = (f"k={part},tau={tau}" for part in smaller(k) for tau in TAUS)
    return {
        name: schema.Distances(views=len(tv_B), tv=_sum(tv_B), kl=_sum(kl_B), tv_bins=_bins(tv_B), kl_bins=_bins(kl_B))
        for name, (tv_B, kl_B) in zip(names, distances_DXB, strict=True)
    }


def _sum(values_B: npt.NDArray[np.float32]) -> float:
    # Torch's order of summation: NumPy's gives other last digits.
    return float(torch.from_numpy(values_B).double().sum())


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
