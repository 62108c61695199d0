"""What the loss compares a student with, from the rows of a batch.

Shapes: B samples, C classes, K kept classes.
"""

from torch import Tensor

from teachonce.format import row_targets
from teachonce.student import student_config


def of(
    row: dict[str, Tensor],
    student: student_config.Student,
    num_classes: int,
    tail: row_targets.TailDecoder | None = None,
) -> Tensor | None:
    """The target that `distillation_loss.loss` takes for this kind of distillation.

    Args:
        row: `logits` float32 (B, C), or what `teachonce.format.row_targets.full` takes, on the student's device.
        student: kind and k.
        num_classes: C.
        tail: what the cache's coded tail stands on; None where it is flat or rows are whole.
    """
    if student.kind == "none":
        return None
    if student.kind == "hard":
        return row["logits"].argmax(dim=1) if "logits" in row else row["class_id"][:, 0]
    if "logits" in row:
        return row["logits"] if student.k is None else _prefix(row["logits"], student.k)
    return row_targets.full_logp(row, num_classes, tail, student.k)


def _prefix(logits_BC: Tensor, k: int) -> Tensor:
    """What a cache of k classes would have given, but for its rounding to float16."""
    logp_BC, class_id_BC = logits_BC.log_softmax(dim=1).sort(dim=1, descending=True, stable=True)
    return row_targets.expand_flat_tail(class_id_BC[:, :k], logp_BC[:, :k], logits_BC.shape[1])
