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
    """No rows, and a teacher that is asked for them batch by batch."""

    teacher: predictor.Predictor | None = None
    """On the device of the batches; loader processes have none."""

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
            aug_seeds: how many are used.
            teacher: on the device of the batches; None where batches are only loaded.
            parts: forward passes that a batch is cut into, for less memory.
        """
        super().__init__(shards)
        self._recipe, self._aug_seeds, self._parts = recipe, aug_seeds, parts
        self.teacher = teacher

    @property
    def teacher_size(self) -> int:
        """Side of the views that the teacher is asked."""
        return self._recipe.teacher.size

    @property
    def policy(self) -> view_policy.Policy:
        """What the views are."""
        return self._recipe.policy

    @property
    def aug_seeds(self) -> int:
        """As many as were asked."""
        return self._aug_seeds

    @property
    def identity(self) -> dict[str, object]:
        """Plain data that changes where its answers do: part of a run's name."""
        return {"recipe": self._recipe.model_dump(mode="json")}

    def padding(self) -> row_source.Rows:
        """No row."""
        return {}

    def rows(self, entry: index.Shard, aug_seed: int) -> row_source.Rows:  # noqa: ARG002 (a cache's)
        """None, whatever the tar."""
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
        if batch.mix:
            views_B3HW = batch_mix.mix_pixels(views_B3HW, batch.mix)
        logits_BC = torch.cat([self.teacher.answer(part) for part in views_B3HW.chunk(self._parts)])
        return replace(batch, rows={"logits": logits_BC}, teacher_pixels=None)
