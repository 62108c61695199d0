"""The training loop: a step, a checkpoint, to the end or to a request to stop."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from teachonce.core import errors, progress, seeding
from teachonce.student import (
    batch_mix,
    batching,
    checkpointer,
    determinism,
    distillation_loss,
    graceful_stop,
    loader,
    microbatches,
    pending_steps,
    process_group,
    schedule,
    soft_targets,
    student_config,
    trainer,
)


def step(
    who: trainer.Learner,
    batch: batching.Batch,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    number: int,
    *,
    whole: batching.Count | None = None,
) -> dict[str, Tensor]:
    """One step of gradient descent.

    Args:
        who: changed in place.
        batch: this rank's samples and the teacher's answers to them.
        settings: recipe.
        student: kind of distillation.
        number: global number of the step, which seeds stochastic depth and places the schedule.
        whole: what the global batch holds; by default this one.

    Returns:
        What this batch adds to the global means before the step, by their names in the curves: scalars. Those of labels
        are missing where the global batch has none.

    Raises:
        NumericsError: loss or gradient are not finite; the weights are those before the step. With a gate nothing is
            raised here, and `who.gate.shut` tells.
    """
    team = who.team
    seeding.seed_torch("step", student.seed, number, *([team.rank] if team.rank else []))
    who.scheduler.step_update(number)
    who.network.train()
    who.optimizer.zero_grad(set_to_none=True)
    whole, batch = whole or batch.count, batch.to(who.device)
    told: list[dict[str, Tensor]] = []
    pieces = microbatches.cut(batch, settings.accumulate)
    with determinism.enforced(who.device, always=settings.deterministic):
        for piece in pieces:
            # Ranks exchange their gradients once a step.
            with contextlib.nullcontext() if piece is pieces[-1] else who.no_sync():
                told.append(_learn(who, piece, settings, student, whole))
    means = {name: torch.stack([one[name] for one in told]).sum() for name in told[0]}
    gradients = [weights.grad for weights in who.network.parameters() if weights.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if who.gate:
        who.gate.update(who.network, number, norm)
        return means
    if not math.isfinite(float(norm)):
        pending_steps.refuse(team, who.step_of(number, batch.keys), float(means["loss"]))
    who.optimizer.step()
    who.ema.update(who.network, number)
    return means


def _learn(
    who: trainer.Learner,
    batch: batching.Batch,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    whole: batching.Count,
) -> dict[str, Tensor]:
    """Add a part's gradient; what it adds to the means."""
    label, weight, mixed = batch.label, batch.weight, batch.mix
    label_share = weight * batch_mix.known(label, mixed) / max(whole.labelled, 1)
    with torch.autocast(who.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        class_BC, dist_BC = who.heads(batch.pixels, mixed)
    found = distillation_loss.loss(
        class_BC.float(),
        None if dist_BC is None else dist_BC.float(),
        batch_mix.labels(label, class_BC.shape[1], settings.smoothing, mixed),
        soft_targets.of(batch.row, student, class_BC.shape[1], who.tail),
        weight / whole.views,
        student=student,
        label_share_B=label_share,
    )
    told = {"loss": found.total.detach()}
    if whole.labelled:
        told["label_loss"] = found.label
        told["top1"] = ((class_BC.detach().argmax(dim=1) == label) * label_share).sum()
    if found.teacher is not None:
        told["teacher_loss"] = found.teacher
    # The gradient of a loss that is not finite may be, but must not be taken for one; ranks average, samples add up.
    factor = torch.where(told["loss"].isfinite(), float(who.team.size), math.nan)
    (found.total * factor).backward()
    return told


@dataclass(frozen=True, slots=True)
class Ended:
    """What a run tells at its end."""

    resumed_at_step: int
    """Steps that an earlier, interrupted run had done."""


def run(
    who: trainer.Learner,
    plan: loader.Plan,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    *,
    length: schedule.Schedule,
    scratch: Path,
    label: str,
    answer: Callable[[batching.Batch], batching.Batch] = lambda batch: batch,
) -> Ended:
    """Train from the last checkpoint in `scratch`, or from the start, to the end.

    Killed at any moment and run again, it repeats the steps since the last checkpoint and ends with the same weights
    and curves.

    Raises:
        StoppedError: a signal asked for it; all is saved.
    """
    team = who.team
    begin, points = trainer.restore(who, scratch)
    kept = checkpointer.Keeper(who, settings, length, scratch, points)
    pass_, inside = length.position(begin)
    batches = loader.batches(
        plan,
        workers=settings.workers,
        number=pass_,
        step=inside,
        rank=team.rank,
        ranks=team.size,
        device=who.device,
    )
    stream = map(answer, batches)
    with (
        contextlib.closing(batches),
        graceful_stop.listening() as request,
        progress.bar(
            range(length.total), label=label, total=length.total, unit="step", initial=begin, shown=team.first
        ) as bar,
    ):
        began_s = time.perf_counter()
        for number in range(begin, length.total):
            found = _next(stream, request, kept, team)
            if found is None:
                kept.stop(number, begin)
            else:
                with team.peers():
                    means = step(who, found[0], settings, student, number, whole=found[1])
                bar.update()
                if point := kept.after(number, found[0].keys, means):
                    rate = (number + 1 - begin) * settings.batch_size / (time.perf_counter() - began_s)
                    shown: dict[str, object] = {
                        name: f"{point[name]:.3f}" for name in ("loss", "top1") if name in point
                    }
                    bar.set_postfix(shown | {"views/s": f"{rate:.0f}"}, refresh=False)
    kept.end()
    return Ended(begin)


def _next(
    stream: Iterator[batching.Batch],
    request: graceful_stop.Request,
    kept: checkpointer.Keeper,
    team: process_group.Team,
) -> tuple[batching.Batch, batching.Count] | None:
    """The next batch and what the global one holds; None, on all ranks, where one was asked to stop."""
    batch: batching.Batch | None = None
    refused: errors.TeachonceError | None = None
    try:
        batch = None if request.made else next(stream)
    except errors.PeerError as error:
        # A signal to all processes of a run ends its loaders, too.
        refused = None if request.made else error
    except errors.TeachonceError as error:
        refused = error
    own = batch.count if batch else batching.Count(0.0, 0.0)
    views, labelled, stops, refusals = team.sums([own.views, own.labelled, request.made, refused is not None])
    if refusals:
        # A step before it may have gone wrong, and came first.
        kept.read(everything=True)
        team.agree(refused)
    return None if stops or batch is None else (batch, batching.Count(views, labelled))
