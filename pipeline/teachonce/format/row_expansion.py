"""A stored row as the teacher's distribution over all classes, in torch, on whatever device the student is.

Shapes: B views, C classes, K kept classes, R coefficients of a transform tail.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from teachonce.format import basis, codec, schema

_MIN_TAIL_MASS = 2.0**-24
"""Mass given to the tail where rounding let the kept classes sum to 1 or more: half a float32 step below 1."""
_MASS_NOISE = 2.0**-8
"""Below about this mass, what is left over after the kept classes is rounding, and the coefficients know it better."""


@dataclass(frozen=True, slots=True, eq=False)
class TailDecoder:
    """Turns a transform tail's coefficients into log-probabilities."""

    mean_C: Tensor
    """float32 (C,): mean log-probability of each class."""
    components_RC: Tensor
    """float32 (R, C), times the quantiser step."""

    def to(self, device: torch.device) -> "TailDecoder":
        """A copy of it on a device."""
        return TailDecoder(self.mean_C.to(device), self.components_RC.to(device))


def tail_decoder(recipe: schema.Recipe, basis_of_store: basis.Basis | None) -> TailDecoder | None:
    """What `full_logp` needs of a store beside its rows; None where the tail is not coded."""
    if basis_of_store is None or not isinstance(recipe.tail, schema.TransformTail):
        return None
    return TailDecoder(
        torch.from_numpy(basis_of_store.mean_C), torch.from_numpy(basis_of_store.components_RC) * recipe.tail.step
    )


def to_tensors(rows: codec.Rows) -> dict[str, Tensor]:
    """Rows as tensors by their name in a store; class ids as int64, which torch can index with."""
    return {
        name: torch.from_numpy(array.astype(np.int64) if name == "class_id" else np.ascontiguousarray(array))
        for name, array in rows.arrays().items()
    }


def full_logp(row: Mapping[str, Tensor], num_classes: int, tail: TailDecoder | None, k: int | None = None) -> Tensor:
    """Log-probabilities over all classes of rows that keep the likeliest: `expand_flat_tail` or `expand_coded_tail`.

    Args:
        row: `class_id` integer (B, K), `logp` floating (B, K) and, where the tail is coded, `tail` uint8 (B, R).
        num_classes: C.
        tail: from `tail_decoder`; None for a flat tail.
        k: use only the k likeliest classes, as if the cache had kept no more.
    """
    class_id_BK, logp_BK = row["class_id"][:, :k], row["logp"][:, :k]
    if tail is None:
        return expand_flat_tail(class_id_BK, logp_BK, num_classes)
    return expand_coded_tail(class_id_BK, logp_BK, row["tail"], tail)


def expand_flat_tail(class_id_BK: Tensor, logp_BK: Tensor, num_classes: int) -> Tensor:
    """Log-probabilities over all classes: kept ones exactly, the left-over mass at tau 1 spread evenly over the rest.

    Divide by tau and take a softmax for the teacher's answer at tau. A prefix of the K columns is a smaller k.
    Renormalising the kept classes instead would move several times as much mass (RESULTS.md, fidelity by tau).

    Args:
        class_id_BK: integer (B, K), K < C.
        logp_BK: floating (B, K), falling along K.
        num_classes: C.

    Returns:
        float32 (B, C). No unkept class stands above the last kept one.
    """
    logp_BK = logp_BK.float()
    rest_B1 = _rest_mass(logp_BK).clamp(min=_MIN_TAIL_MASS)
    tail_B1 = (rest_B1 / (num_classes - logp_BK.shape[1])).log()
    # The sort proves that no other class is likelier than the last kept one, whatever rounding says of the rest.
    tail_B1 = torch.minimum(tail_B1, logp_BK[:, -1:])
    return _with_kept(tail_B1.expand(-1, num_classes), class_id_BK.long(), logp_BK)


def expand_coded_tail(class_id_BK: Tensor, logp_BK: Tensor, tail_BR: Tensor, tail: TailDecoder) -> Tensor:
    """Log-probabilities over all classes: kept ones exactly, the others as their coefficients tell.

    The others are shifted to the mass that the kept ones leave, as far as float16 can tell it. Divide by tau and take a
    softmax for the teacher's answer at tau.

    Args:
        class_id_BK: integer (B, K), K < C.
        logp_BK: floating (B, K), falling along K.
        tail_BR: uint8 (B, R), folded as `basis.encode` does.
        tail: what coefficients stand for, on the same device.

    Returns:
        float32 (B, C). No unkept class stands above the last kept one.
    """
    logp_BK, class_id_BK = logp_BK.float(), class_id_BK.long()
    logq_BC = torch.addmm(tail.mean_C, _unfold(tail_BR.float()), tail.components_RC)
    # Of the other classes alone: the mass of the kept ones is known, and not from coefficients.
    coded_mass_B1 = logq_BC.scatter(1, class_id_BK, -torch.inf).logsumexp(dim=1, keepdim=True)
    # Added to both masses: where they are mere rounding, their ratio is 1, and the others stay as they were coded.
    rest_B1 = (_rest_mass(logp_BK).clamp(min=0) + _MASS_NOISE).log()
    # In logarithms: coefficients at their clip could give a mass beyond float32.
    coded_mass_B1 = torch.logaddexp(coded_mass_B1, coded_mass_B1.new_full((), _MASS_NOISE).log())
    logq_BC = torch.minimum(logq_BC + rest_B1 - coded_mass_B1, logp_BK[:, -1:])
    return _with_kept(logq_BC, class_id_BK, logp_BK)


def _with_kept(logq_BC: Tensor, class_id_BK: Tensor, logp_BK: Tensor) -> Tensor:
    """The rows with the kept classes in their places."""
    # In one dimension: where a GPU is to add in one order, torch (2.11) scatters in more of them by way of strides that
    # it copies from the host, which then waits for the device.
    first_B1 = torch.arange(len(logq_BC), device=logq_BC.device).unsqueeze(1) * logq_BC.shape[1]
    places = (class_id_BK + first_B1).view(-1)
    return logq_BC.reshape(-1).scatter(0, places, logp_BK.reshape(-1)).view(logq_BC.shape)


def _unfold(folded: Tensor) -> Tensor:
    """Coefficients from their stored form: 0, 1, 2, 3, 4 … are 0, −1, 1, −2, 2 … steps."""
    magnitude = (folded / 2).ceil()
    return torch.where(folded % 2 == 1, -magnitude, magnitude)


def _rest_mass(logp_BK: Tensor) -> Tensor:
    return 1.0 - logp_BK.exp().sum(dim=1, keepdim=True)
