"""What the loss compares a student with, from the rows of a batch.

Shapes: B samples, C classes, K kept classes.
"""

from torch import Tensor

from pipeline.cache import target
from pipeline.student import config


def of(row: dict[str, Tensor], student: config.Student, num_classes: int) -> Tensor | None:
    """The target that `loss.loss` takes for this kind of distillation.

    Args:
        row: `logits` float32 (B, C), or `class_id` int64 (B, K) and `logp` (B, K), on the student's device.
        student: kind and k.
        num_classes: C.
    """
    if student.kind == "none":
        return None
    if "logits" in row:
        return row["logits"].argmax(dim=1) if student.kind == "hard" else row["logits"]
    if student.kind == "hard":
        return row["class_id"][:, 0]
    return target.flat_tail(row["class_id"][:, : student.k], row["logp"][:, : student.k], num_classes)
