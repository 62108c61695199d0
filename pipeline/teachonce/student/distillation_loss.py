"""The loss of a distilled student, and its targets, from the rows of a batch. It knows no teacher.

Shapes: B views, C classes, K kept classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from teachonce.format import row_expansion
from teachonce.student import student_spec


@dataclass(frozen=True, slots=True)
class LossParts:
    """What is minimised and what it is made of, in nats: scalars."""

    total: Tensor
    """The sum, weighted by alpha."""
    label: Tensor
    """Cross entropy of the class head with the smoothed label; 0 where no view has one."""
    teacher: Tensor | None
    """The distillation term, before alpha."""


def weighted_total(
    class_BC: Tensor,
    dist_BC: Tensor | None,
    label_BC: Tensor,
    target: Tensor | None,
    share_B: Tensor,
    *,
    spec: student_spec.StudentSpec,
    label_share_B: Tensor | None = None,
) -> LossParts:
    """`(1 − alpha) · CE(class head, label) + alpha · D(distillation head, teacher)`.

    Args:
        class_BC: floating (B, C), logits of the class head.
        dist_BC: floating (B, C), logits of the distillation head; None where the model has one head, which then
            learns from both.
        label_BC: floating (B, C), what the class head learns: the label as a distribution, smoothed and mixed.
        target: for soft, floating (B, C): the teacher's logits or log-probabilities at tau 1, any shift; for hard,
            int64 (B,): its likeliest class; for none, None.
        share_B: floating (B,): each view's share of a mean, 0 for padding. They sum to 1 over all the parts that a
            step's batch is cut into.
        spec: kind, alpha, tau, kl_scale and weight.
        label_share_B: floating (B,), as `share_B` over the views that have a label; None where all have.

    Source: Hinton et al. 2014 (soft), Touvron et al. 2021, equations 2 and 3 (hard, token).
    Differs: from facebookresearch/deit, which divides the soft term by B · C: that is `kl_scale: numel` here.
    """
    label_B = F.cross_entropy(class_BC, label_BC, reduction="none")
    # Shares, not a mean: the mean of a part of a batch would weigh a view by the size of its part, and padding as a
    # view.
    label = torch.dot(label_B, share_B if label_share_B is None else label_share_B)
    if spec.kind == "none" or target is None:
        return LossParts(label, label.detach(), None)
    # With a token the two heads learn apart: the class head never sees the teacher, but through the shared body.
    student_BC = class_BC if dist_BC is None else dist_BC
    if spec.kind == "hard":
        teacher_B = F.cross_entropy(student_BC, target, reduction="none", label_smoothing=spec.teacher_smoothing)
    else:
        teacher_B = tempered_kl(student_BC, target, spec.tau) * spec.weight
        # After the sum over classes: C times smaller, and so tau and alpha that were tuned here mean little there.
        if spec.kl_scale == "numel":
            teacher_B = teacher_B / student_BC.shape[1]
    teacher = torch.dot(teacher_B, share_B)
    return LossParts((1 - spec.alpha) * label + spec.alpha * teacher, label.detach(), teacher.detach())


def tempered_kl(student_BC: Tensor, target_BC: Tensor, tau: float) -> Tensor:
    """`tau² · KL(softmax(target / tau) ‖ softmax(student / tau))` of each sample: (B,).

    tau² keeps the size of the gradient when tau changes (Hinton et al. 2014, §2.1).
    """
    student_logp_BC = F.log_softmax(student_BC / tau, dim=1)
    target_logp_BC = F.log_softmax(target_BC / tau, dim=1)
    kl_BC = F.kl_div(student_logp_BC, target_logp_BC, log_target=True, reduction="none")
    return kl_BC.sum(dim=1) * tau**2


def teacher_target(
    rows: dict[str, Tensor],
    spec: student_spec.StudentSpec,
    num_classes: int,
    tail: row_expansion.TailDecoder | None = None,
) -> Tensor | None:
    """What `weighted_total` compares a student with, from the teacher's rows, for this kind of distillation.

    Args:
        rows: `logits` float32 (B, C), or what `teachonce.format.row_expansion.full` takes, on the student's device.
        spec: kind and k.
        num_classes: C.
        tail: what the cache's coded tail stands on; None where it is flat or rows are whole.
    """
    if spec.kind == "none":
        return None
    if spec.kind == "hard":
        # Kept classes stand by falling logit: the first is the likeliest, at any k and tau.
        return rows["logits"].argmax(dim=1) if "logits" in rows else rows["class_id"][:, 0]
    if "logits" in rows:
        return rows["logits"] if spec.k is None else _prefix(rows["logits"], spec.k)
    return row_expansion.full_logp(rows, num_classes, tail, spec.k)


def _prefix(logits_BC: Tensor, k: int) -> Tensor:
    """What a cache of k classes would have given, but for its rounding to float16."""
    # Stable, as the cache sorts: of equal logits the same classes are kept.
    logp_BC, class_id_BC = logits_BC.log_softmax(dim=1).sort(dim=1, descending=True, stable=True)
    return row_expansion.expand_flat_tail(class_id_BC[:, :k], logp_BC[:, :k], logits_BC.shape[1])
