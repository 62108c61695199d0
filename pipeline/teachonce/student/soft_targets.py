"""What the loss compares a student with, from the rows of a batch.

Shapes: B samples, C classes, K kept classes.
"""

from torch import Tensor

from teachonce.format import row_targets
from teachonce.student import student_spec


def teacher_target(
    rows: dict[str, Tensor],
    spec: student_spec.StudentSpec,
    num_classes: int,
    tail: row_targets.TailDecoder | None = None,
) -> Tensor | None:
    """The target that `distillation_loss.weighted_total` takes for this kind of distillation.

    Args:
        rows: `logits` float32 (B, C), or what `teachonce.format.row_targets.full` takes, on the student's device.
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
    return row_targets.full_logp(rows, num_classes, tail, spec.k)


def _prefix(logits_BC: Tensor, k: int) -> Tensor:
    """What a cache of k classes would have given, but for its rounding to float16."""
    logp_BC, class_id_BC = logits_BC.log_softmax(dim=1).sort(dim=1, descending=True, stable=True)
    return row_targets.expand_flat_tail(class_id_BC[:, :k], logp_BC[:, :k], logits_BC.shape[1])
