"""The training loop: a step, an epoch, a checkpoint, to the end."""

import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path

import timm.optim
import timm.scheduler
import timm.utils
import torch
from torch import Tensor

from pipeline.base import errors, progress, seeding
from pipeline.cache import target as cache_target
from pipeline.student import checkpoint, config, curve, feed, loss, mix, model, schedule, target


@dataclass(slots=True)
class Learner:
    """A student in training."""

    network: torch.nn.Module
    """The weights that are trained."""
    ema: timm.utils.ModelEmaV3
    """Their average."""
    optimizer: torch.optim.Optimizer
    """AdamW."""
    scheduler: timm.scheduler.CosineLRScheduler
    """Warm-up and cosine, by step."""
    device: torch.device
    """Where."""
    tail: cache_target.Sketch | None
    """What the cache's coded tail stands on, on that device."""


def learner(
    settings: config.StudentConfig, student: config.Student, *, num_classes: int, length: schedule.Schedule,
    tail: cache_target.Sketch | None = None,
) -> Learner:  # fmt: skip
    """A fresh student with its optimiser, schedule and average."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = model.build(settings, student, num_classes).to(device)
    optimizer = timm.optim.create_optimizer_v2(network, opt="adamw", lr=settings.lr, weight_decay=settings.weight_decay)
    scheduler = timm.scheduler.CosineLRScheduler(
        optimizer, t_initial=length.total, lr_min=settings.min_lr, warmup_t=length.warmup,
        warmup_lr_init=settings.warmup_lr, t_in_epochs=False,
    )  # fmt: skip
    ema = timm.utils.ModelEmaV3(network, decay=settings.ema_decay, use_warmup=True)
    return Learner(network, ema, optimizer, scheduler, device, tail.to(device) if tail else None)


def step(
    who: Learner, batch: feed.Batch, settings: config.StudentConfig, student: config.Student, number: int
) -> tuple[loss.Loss, Tensor]:
    """One step of gradient descent.

    Args:
        who: changed in place.
        batch: samples and the teacher's answers to them.
        settings: recipe.
        student: kind of distillation.
        number: global number of the step, which seeds stochastic depth and places the schedule.

    Returns:
        The loss before the step, and how many labelled views of the batch the class head got right, a scalar.

    Raises:
        NumericsError: the loss is not finite; the weights are those before the step.
    """
    seeding.seed_torch("step", student.seed, number)
    who.scheduler.step_update(number)
    who.network.train()
    mean, std = (torch.tensor(value, device=who.device).view(3, 1, 1) * 255 for value in (settings.mean, settings.std))
    pixels, label, weight = (
        part.to(who.device, non_blocking=True) for part in (batch.pixels, batch.label, batch.weight)
    )
    mixed = batch.mix.to(who.device) if batch.mix else None
    images = ((mix.pixels(pixels, mixed) if mixed else pixels.float()) - mean) / std
    labelled = weight * mix.known(label, mixed)
    row = {name: rows.to(who.device, non_blocking=True) for name, rows in batch.row.items()}
    with torch.autocast(who.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        class_BC, dist_BC = model.heads(who.network, images)
    found = loss.loss(
        class_BC.float(), None if dist_BC is None else dist_BC.float(),
        mix.labels(label, class_BC.shape[1], settings.smoothing, mixed),
        target.of(row, student, class_BC.shape[1], who.tail), loss.share(weight), student=student,
        label_share_B=loss.share(labelled),
    )  # fmt: skip
    if not math.isfinite(float(found.total.detach())):
        raise errors.NumericsError(
            f"train: the loss of step {number} is {float(found.total.detach())}. Lower lr, or use float32"
        )
    who.optimizer.zero_grad(set_to_none=True)
    found.total.backward()
    who.optimizer.step()
    who.ema.update(who.network, number)
    correct = ((class_BC.detach().argmax(dim=1) == label) * labelled).sum()
    return found, correct


@dataclass(frozen=True, slots=True)
class Ended:
    """What a run tells at its end."""

    resumed_at_step: int
    """Steps that an earlier, interrupted run had done."""


def run(
    who: Learner, plan: feed.Plan, settings: config.StudentConfig, student: config.Student,
    *, length: schedule.Schedule, scratch: Path, label: str,
) -> Ended:  # fmt: skip
    """Train from the last checkpoint in `scratch`, or from the start, to the end.

    Killed at any moment and run again, it repeats at most one epoch and ends with the same weights and curves.
    """
    first, points = _resume(who, scratch)
    curves = curve.Curve(scratch / "curves", points)
    begin, total = first * length.steps_a_pass, length.total
    stream = itertools.islice(feed.batches(plan, workers=settings.workers, number=first), total - begin)
    began_s = time.perf_counter()
    with progress.bar(range(total), label=label, total=total, unit="step", initial=begin) as bar:
        for number, batch in enumerate(stream, start=begin):
            found, correct = step(who, batch, settings, student, number)
            bar.update()
            if number % settings.log_every == 0 or number == total - 1:
                point = _point(found, correct, batch, who)
                curves.add(number, point)
                rate = (bar.n - bar.initial) * settings.batch_size / (time.perf_counter() - began_s)
                shown = {name: f"{value:.3f}" for name, value in point.items() if name in ("loss", "top1")}
                bar.set_postfix({**shown, "views/s": f"{rate:.0f}"}, refresh=False)
            done, last = length.position(number + 1)
            if not last:
                checkpoint.save(scratch, _state(who, done, curves))
    curves.end()
    return Ended(begin)


def _resume(who: Learner, scratch: Path) -> tuple[int, list[tuple[int, curve.Point]]]:
    state = checkpoint.load(scratch)
    if state is None:
        return 0, []
    who.network.load_state_dict(state.model)
    who.ema.module.load_state_dict(state.ema)
    who.optimizer.load_state_dict(state.optimizer)
    return state.epoch, state.points


def _state(who: Learner, epoch: int, curves: curve.Curve) -> checkpoint.State:
    return checkpoint.State(
        epoch=epoch, model=who.network.state_dict(), ema=who.ema.module.state_dict(),
        optimizer=who.optimizer.state_dict(), points=curves.points,
    )  # fmt: skip


def _point(found: loss.Loss, correct: Tensor, batch: feed.Batch, who: Learner) -> curve.Point:
    point = {
        "loss": float(found.total.detach()),
        "lr": float(who.optimizer.param_groups[0]["lr"]),
    }
    if labelled := float((batch.weight * mix.known(batch.label, batch.mix)).sum()):
        point |= {"label_loss": float(found.label), "top1": float(correct) / labelled}
    return point if found.teacher is None else {**point, "teacher_loss": float(found.teacher)}
