"""Batches by plain values: what a student's configuration and a source of rows say where a student is trained."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch

from teachonce.format import schema
from teachonce.student import batching, loader, process_group, row_source, student_spec, train_config
from teachonce.tools.live import live_rows
from teachonce.views.view_policy import Policy


@dataclass(frozen=True)
class Live:
    """Views for a teacher in the loop."""

    policy: Policy
    size: int
    """Side of the teacher's input."""

    def recipe(self) -> schema.Recipe:
        """That of a teacher of which nothing else matters."""
        identity = schema.Teacher(
            architecture="none",
            arguments={},
            weights_sha256="0" * 64,
            size=self.size,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            precision="float32",
            num_classes=10,
            classes_sha256="0" * 64,
        )
        return schema.Recipe(teacher=identity, policy=self.policy, k="all", tail="none")


@dataclass(frozen=True)
class Plan:
    """What determines the batches of a run."""

    shards: str | Path
    cache: str | Path | Live
    size: int
    batch_size: int
    lanes: int
    buffer: int
    passes: int
    aug_seeds: int
    seed: int
    accept: tuple[str, ...] = ()

    def source(self) -> row_source.RowSource:
        if isinstance(self.cache, Live):
            return live_rows.LiveRows(self.shards, self.cache.recipe(), aug_seeds=self.aug_seeds)
        return row_source.CachedRows(self.shards, self.cache, aug_seeds=self.aug_seeds, accept=self.accept)

    def student(self, workers: int) -> student_spec.Student:
        config = train_config.TrainConfig(
            architecture="none",
            distilled_architecture="none",
            size=self.size,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            epochs=10,
            batch_size=self.batch_size,
            lanes=self.lanes,
            buffer=self.buffer,
            workers=workers,
            lr=0.001,
        )
        return student_spec.Student("x", student_spec.PlainSpec(model="x", kind="none", seed=self.seed), config)


def batches(
    plan: Plan,
    *,
    workers: int,
    number: int = 0,
    step: int = 0,
    rank: int = 0,
    ranks: int = 1,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - constant
) -> Generator[batching.Batch]:
    """The batches of a rank, from a pass and a step within it on."""
    world = process_group.World(rank, ranks, device)
    return loader.iter_batches(plan.source(), plan.student(workers), plan.passes, world=world, start=(number, step))
