"""`codec.pack` in torch, on whatever device the logits are: what is not stored never leaves it.

Class ids are those of `codec.pack`, ties and all; the rest agrees to within its last rounding.

Shapes: B views, C classes, K kept classes, R coefficients of a transform tail.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from teachonce.format import basis, codec, schema

_MIN_LOGP = float(np.finfo(np.float16).min)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTail:
    """`codec.TailCoding`, ready on a device."""

    mean_C: Tensor
    """float64 (C,): of `basis.Basis`."""
    scale_C: Tensor
    """float64 (C,): of `basis.Basis`."""
    weights_CR: Tensor
    """float64 (C, R): of scaled log-probabilities in a coefficient."""
    step: float
    """Size of a quantiser step, in scaled nats."""


def prepare_tail(tail: codec.TailCoding, device: torch.device) -> DeviceTail:
    """What `pack_on_device` needs to code a tail; to be copied once a unit, since that waits for the device."""
    wide_C = tail.basis.scale_C.astype(np.float64)
    arrays = tail.basis.mean_C.astype(np.float64), wide_C, (tail.basis.components_RC * wide_C).T
    mean_C, scale_C, weights_CR = (torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays)
    return DeviceTail(mean_C, scale_C, weights_CR, tail.step)


def pack_on_device(logits_BC: Tensor, k: int | Literal["all"], tail: DeviceTail | None = None) -> dict[str, Tensor]:
    """Logits into rows as `codec.pack` does, without waiting for the device.

    Args:
        logits_BC: float32 (B, C); a row that is not finite gives a row of anything.
        k: how many classes to keep, below C; or `all`.
        tail: on the device of the logits; None for a flat tail.

    Returns:
        By name in a store: `logits` float32 (B, C), or `class_id` int32 (B, K), `logp` float16 (B, K) and `lse` float32
        (B,), with `tail` uint8 (B, R) where it is coded.
    """
    if k == "all":
        return {"logits": logits_BC}
    # topk breaks ties as it likes, and a GPU sorts −0 below 0, unless 0 is added.
    class_id_BK = torch.sort(logits_BC + 0.0, dim=1, descending=True, stable=True).indices[:, :k]
    # In float64 here too: rows made on a GPU and on a CPU must agree to their last rounding.
    wide_BC = logits_BC.double()
    top_B1 = wide_BC.amax(dim=1, keepdim=True)
    shifted_BC = wide_BC - top_B1
    log_sum_B1 = shifted_BC.exp().sum(dim=1, keepdim=True).log()
    logp_BK = shifted_BC.gather(1, class_id_BK) - log_sum_B1
    packed = {
        # Half the bytes of torch's int64 on their way to the host, which narrows them to what is stored.
        "class_id": class_id_BK.int(),
        "logp": logp_BK.clamp(min=_MIN_LOGP).half(),
        "lse": (top_B1 + log_sum_B1)[:, 0].float(),
    }
    if tail:
        packed["tail"] = _encode(tail, shifted_BC - log_sum_B1)
    return packed


def _encode(tail: DeviceTail, logp_BC: Tensor) -> Tensor:
    """`basis.encode` of log-probabilities (B, C): uint8 (B, R)."""
    coefficients_BR = ((logp_BC - tail.mean_C) * tail.scale_C) @ tail.weights_CR
    steps_BR = (coefficients_BR / tail.step).round().clamp(-basis.LIMIT, basis.LIMIT)
    return (2 * steps_BR.abs() - (steps_BR < 0).double()).to(torch.uint8)


def to_rows(packed: Mapping[str, Tensor], num_classes: int) -> codec.Rows:
    """What `pack_on_device` gave, as stored.

    Args:
        packed: on the CPU.
        num_classes: C, which the dtype of a class id depends on.
    """
    arrays = {name: tensor.numpy() for name, tensor in packed.items()}
    if "class_id" in arrays:
        arrays["class_id"] = arrays["class_id"].astype(schema.class_dtype(num_classes))
    return codec.rows_from_arrays(arrays)
