"""The teacher in the loop: a batch's rows, answered when they are needed.

Shapes: B views, C classes.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from teachonce.format import schema
from teachonce.shards import index, sample_reader
from teachonce.student import batch_mix, batching, row_source
from teachonce.teacher import predictor
from teachonce.views import view_policy


class LiveRows(row_source.RowSource):
    """A source whose rows are not stored: a teacher answers each batch when it is trained on."""

    # None on the class, and named without an underscore: what a loader process is sent holds names with one alone
    # (`RowSource.__getstate__`), and so no network.
    teacher: predictor.Predictor | None = None
    """The teacher, on the device of the batches; loader processes have none."""

    def __init__(
        self,
        shards: str | Path,
        recipe: schema.Recipe,
        *,
        aug_seeds: int,
        teacher: predictor.Predictor | None = None,
        parts: int = 1,
    ) -> None:
        """Name the images and the teacher.

        Args:
            shards: folder of shards, or its URL.
            recipe: what a cache of the same rows would say: the teacher, and the policy of the views.
            aug_seeds: views of each image over the run, as many as a cache would hold.
            teacher: on the device of the batches; None where batches are only loaded.
            parts: forward passes that a batch is cut into, for less memory.
        """
        super().__init__(shards)
        self._recipe, self._aug_seeds, self._parts = recipe, aug_seeds, parts
        self.teacher = teacher

    @property
    def teacher_size(self) -> int:
        """Side in pixels of the views that the teacher answers."""
        return self._recipe.teacher.size

    @property
    def policy(self) -> view_policy.Policy:
        """Policy of the views, for teacher and student alike."""
        return self._recipe.policy

    @property
    def aug_seeds(self) -> int:
        """Views of each image over the run."""
        return self._aug_seeds

    @property
    def identity(self) -> dict[str, object]:
        """Plain data that changes where the teacher's answers do: part of a run's name."""
        return {"recipe": self._recipe.model_dump(mode="json")}

    def padding(self) -> row_source.Rows:
        """No array at all: nothing stands in a batch until the teacher answers."""
        return {}

    def rows(self, entry: index.Shard, aug_seed: int) -> row_source.Rows:  # noqa: ARG002 (a cache's)
        """No array at all, whatever the tar."""
        return {}

    def samples(self, entry: index.Shard, aug_seeds: range) -> Iterator[sample_reader.Sample]:  # noqa: ARG002 (a cache's)
        """The tar's samples in row order, verified."""
        return sample_reader.verified_samples(entry, self.indexed.path(entry))

    def answer(self, batch: batching.Batch) -> batching.Batch:
        """The batch with whole rows: `logits` float32 (B, C).

        Raises:
            TypeError: the batch was made for a cache, or there is no teacher.
        """
        if batch.teacher_pixels is None or self.teacher is None:
            raise TypeError("a batch for a live teacher, and the teacher, are wanted")
        views_B3HW = batch.teacher_pixels
        # Mixed at the teacher's size, as the cache stage mixes: the box is rounded to pixels anew at each size.
        if batch.mix:
            views_B3HW = batch_mix.mix_pixels(views_B3HW, batch.mix)
        # In parts, as the student's batch is accumulated: one that fits the device in parts need not fit it whole.
        logits_BC = torch.cat([self.teacher.answer(chunk) for chunk in views_B3HW.chunk(self._parts)])
        return replace(batch, rows={"logits": logits_BC}, teacher_pixels=None)
