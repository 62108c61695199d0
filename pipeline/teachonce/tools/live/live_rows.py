"""The teacher in the loop: a batch's rows, answered when they are needed.

Shapes: B views, C classes.
"""

from dataclasses import replace

import torch

from teachonce.student import batch_mix, batching
from teachonce.teacher import predictor


class LiveTeacher:
    """A teacher that answers the batches of a student."""

    def __init__(self, teacher: predictor.Predictor, parts: int) -> None:
        """Take a teacher.

        Args:
            teacher: on the device of the batches.
            parts: forward passes that a batch is cut into, for less memory.
        """
        self._teacher = teacher
        self._parts = parts

    def __call__(self, batch: batching.Batch) -> batching.Batch:
        """The batch with whole rows: `logits` float32 (B, C)."""
        if batch.asked is None:
            raise TypeError("the batch was made for a cache")
        views_B3HW = batch_mix.pixels(batch.asked, batch.mix) if batch.mix else batch.asked
        logits_BC = torch.cat([self._teacher.answer(part) for part in views_B3HW.chunk(self._parts)])
        return replace(batch, row={"logits": logits_BC}, asked=None)
