"""How far rows are from the teacher's full softmax, measured in torch while the full logits are in hand.

Total variation TV(p, q) = ½ Σ|p − q| and KL(p ‖ q) in nats, p the teacher's softmax at tau and q the row's.

Shapes: B views, C classes, D pairs of k and tau.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from teachonce.format import codec, fidelity, row_expansion, schema


def measure_rows(
    logits_BC: npt.NDArray[np.float32], rows: codec.Rows, tail: row_expansion.TailDecoder | None = None
) -> dict[str, schema.Distances]:
    """Distances of rows to the logits they were packed from, by `k=…,tau=…`; empty where rows are whole.

    Args:
        logits_BC: float32 (B, C), the teacher's.
        rows: made of them by `codec.pack`.
        tail: what the rows' coefficients stand for; None for a flat tail.
    """
    if rows.logp_BK is None:
        return {}
    distances_DXB = row_distances(torch.from_numpy(logits_BC), row_expansion.to_tensors(rows), tail)
    return accumulate_distances(distances_DXB.numpy(), rows.logp_BK.shape[1])


def row_distances(
    logits_BC: torch.Tensor, row: Mapping[str, torch.Tensor], tail: row_expansion.TailDecoder | None
) -> torch.Tensor:
    """Distance of each row to the logits it was packed from, without waiting for the device.

    Args:
        logits_BC: float32 (B, C).
        row: as `row_expansion.full_logp` takes it, on the device of the logits.
        tail: on that device; None for a flat tail.

    Returns:
        float32 (D, 2, B): total variation and KL of each view, for each `k=…,tau=…` in the order of
        `accumulate_distances`.
    """
    teacher_logps = [(logits_BC / tau).log_softmax(dim=1) for tau in fidelity.TAUS]
    distances = []
    for k in fidelity.measured_ks(row["logp"].shape[1]):
        row_logp_BC = row_expansion.full_logp(row, logits_BC.shape[1], tail, k)
        for tau, teacher_logp_BC in zip(fidelity.TAUS, teacher_logps, strict=True):
            distances.append(_distances(teacher_logp_BC, (row_logp_BC / tau).log_softmax(dim=1)))
    # Still on the device: to read a number here would make the host wait, and the device run out of work.
    return torch.stack(distances)


def _distances(logp_BC: torch.Tensor, logq_BC: torch.Tensor) -> torch.Tensor:
    p_BC = logp_BC.exp()
    tv_B = (p_BC - logq_BC.exp()).abs().sum(dim=1) / 2
    # Rounding can leave the divergence of nearly equal rows just below 0.
    kl_B = (p_BC * (logp_BC - logq_BC)).sum(dim=1).clamp(min=0)
    return torch.stack([tv_B, kl_B])


def accumulate_distances(distances_DXB: npt.NDArray[np.float32], k: int) -> dict[str, schema.Distances]:
    """Sums and counts of what `row_distances` measured of rows of k classes, by `k=…,tau=…`; X is TV and KL."""
    names = (f"k={part},tau={tau}" for part in fidelity.measured_ks(k) for tau in fidelity.TAUS)
    return {
        name: schema.Distances(views=len(tv_B), tv=_sum(tv_B), kl=_sum(kl_B), tv_bins=_bins(tv_B), kl_bins=_bins(kl_B))
        for name, (tv_B, kl_B) in zip(names, distances_DXB, strict=True)
    }


def _sum(values_B: npt.NDArray[np.float32]) -> float:
    # Torch's order of summation, as ever: NumPy's gives other last digits, hence other records of the same rows.
    return float(torch.from_numpy(values_B).double().sum())


def _bins(values_B: npt.NDArray[np.float32]) -> dict[str, int]:
    numbers, counts = np.unique(np.searchsorted(fidelity.EDGES, values_B), return_counts=True)
    return {str(number): int(count) for number, count in zip(numbers, counts, strict=True)}
