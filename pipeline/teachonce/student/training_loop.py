"""The training loop: a step, a checkpoint, to the end or to a request to stop."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from teachonce.core import errors, graceful_stop, progress
from teachonce.student import batching, checkpointer, loader, process_group, resume, row_source, trainer


def train_to_end(student_trainer: trainer.Trainer, source: row_source.RowSource, folder: Path, label: str) -> int:
    """Train from the last checkpoint in a folder, or from the start, to the end.

    Killed at any moment and run again, it repeats the steps since the last checkpoint and ends with the same weights
    and curves.

    Args:
        student_trainer: changed in place.
        source: of the samples and the teacher's rows.
        folder: of the run.
        label: on the progress bar.

    Returns:
        Steps that an earlier, interrupted run had done.

    Raises:
        NumericsError: a loss or gradient is not finite.
        StoppedError: a signal asked for it; all is saved.
    """
    world, length = student_trainer.world, student_trainer.length
    # A step and the curves up to it are all that a run goes on from: the order of samples is a function of the
    # position, and each step seeds its own draws.
    start_step, points = resume.from_newest(student_trainer, folder)
    writer = checkpointer.Checkpointer(student_trainer, folder, points)
    batches = loader.iter_batches(
        source, student_trainer.student, length.passes, world=world, start=length.position(start_step)
    )
    # Here, not in the loader's processes: a live teacher answers on the device, and lives in the training process
    # alone.
    answered = map(source.answer, batches)
    with (
        contextlib.closing(batches),
        graceful_stop.GracefulStop() as stop,
        progress.bar(
            range(length.total),
            label=label,
            total=length.total,
            unit="step",
            initial=start_step,
            shown=world.is_main,
        ) as bar,
    ):
        began_s = time.perf_counter()
        for step in range(start_step, length.total):
            share = _next_batch(answered, stop, writer, world)
            if share is None:
                writer.stop(step, start_step)
                break
            # Means are divided by what all ranks hold: a rank whose part is mostly padding would else weigh its few
            # views as much as another's many.
            batch, global_count = share
            with world.peer_errors():
                means = student_trainer.train_step(batch, step, global_count=global_count)
            bar.update()
            if point := writer.after_step(step, batch.keys, means):
                views = (step + 1 - start_step) * student_trainer.student.config.batch_size
                rate = views / (time.perf_counter() - began_s)
                bar.set_postfix(_shown(point) | {"views/s": f"{rate:.0f}"}, refresh=False)
    writer.close()
    return start_step


def _shown(point: dict[str, float]) -> dict[str, object]:
    return {name: f"{point[name]:.3f}" for name in ("loss", "top1") if name in point}


def _next_batch(
    batches: Iterator[batching.Batch],
    stop: graceful_stop.GracefulStop,
    writer: checkpointer.Checkpointer,
    world: process_group.World,
) -> tuple[batching.Batch, batching.ViewCount] | None:
    """The next batch and what the global one holds; None, on all ranks, where one was asked to stop.

    The ranks agree here, once a step, on all that could part them: one sum tells the global counts, a signal that
    reached one of them, and a refusal on another. A rank that left the loop by itself would leave the others waiting.

    Args:
        batches: of this rank.
        stop: whether this rank was asked to.
        writer: knows of steps that may have gone wrong before.
        world: all ranks.

    Raises:
        NumericsError: a step before it had a loss or gradient that is not finite.
        TeachonceError: on the first rank, whatever a rank's loader refused.
    """
    batch: batching.Batch | None = None
    refusal: errors.TeachonceError | None = None
    try:
        batch = None if stop.requested else next(batches)
    except errors.PeerError as error:
        # A signal to all processes of a run ends its loaders, too.
        refusal = None if stop.requested else error
    except errors.TeachonceError as error:
        refusal = error
    count = batch.count if batch else batching.ViewCount(0.0, 0.0)
    views, labelled, stops, refusals = world.all_sum([count.views, count.labelled, stop.requested, refusal is not None])
    if refusals:
        # A step before it may have gone wrong, and came first. All ranks read, or those that did not would be waited
        # for.
        writer.read_pending(everything=True)
        world.raise_first(refusal)
    return None if stops or batch is None else (batch, batching.ViewCount(views, labelled))
