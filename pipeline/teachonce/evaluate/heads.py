"""The ways to read a student's answer off its heads.

Shapes: B images, C classes.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class HeadPrediction:
    """Answers to a batch, read in one way."""

    scores_BC: Tensor
    """float32 (B, C): what classes are ranked by."""
    logp_BC: Tensor
    """float32 (B, C): log-probabilities at tau 1."""


def main_reading(names: Collection[str]) -> str:
    """The reading that stands for a student: of both heads where it has two."""
    return "both" if "both" in names else "class"


def read(class_BC: Tensor, dist_BC: Tensor | None) -> dict[str, HeadPrediction]:
    """The answers of a student by name: `class` alone, and `dist`, `both` and `sum_softmax` where it has two heads.

    Args:
        class_BC: logits of the class head.
        dist_BC: logits of the distillation head, if there is one.

    Returns:
        One answer a reading, in the order in which tables show them.

    Source: Touvron et al. 2021 §4 adds the heads' softmaxes (`sum_softmax`); timm averages their logits (`both`).
    """
    answers = {"class": _of_logits(class_BC)}
    if dist_BC is None:
        return answers
    # In logarithms: a probability that underflows to zero would give an infinite KL, and ties among unlikely classes.
    logp_BC = torch.logaddexp(F.log_softmax(class_BC, dim=1), F.log_softmax(dist_BC, dim=1)) - math.log(2)
    return {
        **answers,
        "dist": _of_logits(dist_BC),
        "both": _of_logits((class_BC + dist_BC) / 2),
        "sum_softmax": HeadPrediction(logp_BC, logp_BC),
    }


def _of_logits(logits_BC: Tensor) -> HeadPrediction:
    return HeadPrediction(logits_BC, F.log_softmax(logits_BC, dim=1))
