"""A stored row as the teacher's distribution over all classes, in torch, on whatever device the student is.

Shapes: B views, C classes, K kept classes.
"""

import torch
from torch import Tensor

_LEAST_MASS = 2.0**-24
"""Mass given to the tail where rounding let the kept classes sum to 1 or more: half a float32 step below 1."""


def flat_tail(class_id_BK: Tensor, logp_BK: Tensor, num_classes: int) -> Tensor:
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
    rest_B1 = (1.0 - logp_BK.exp().sum(dim=1, keepdim=True)).clamp(min=_LEAST_MASS)
    tail_B1 = (rest_B1 / (num_classes - logp_BK.shape[1])).log()
    tail_B1 = torch.minimum(tail_B1, logp_BK[:, -1:])
    return tail_B1.expand(-1, num_classes).scatter(1, class_id_BK.long(), logp_BK)
