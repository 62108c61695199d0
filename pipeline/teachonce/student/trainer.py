"""A student in training: its weights, optimiser, schedule and average, made, saved and restored as one."""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm.optim
import timm.scheduler
import timm.utils
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from teachonce.core import arithmetic, errors, files
from teachonce.format import row_targets
from teachonce.student import (
    batch_mix,
    checkpoint,
    curve,
    fine_tuning,
    finite_gate,
    pending_steps,
    process_group,
    schedule,
    state_checks,
    student_config,
    student_model,
)

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Learner:
    """A student in training."""

    network: torch.nn.Module
    """The weights that are trained."""
    heads: torch.nn.Module
    """Views, and how they are mixed, to both heads' logits; under a launcher, its backward pass averages the ranks'
    gradients."""
    ema: timm.utils.ModelEmaV3
    """The weights' average."""
    optimizer: torch.optim.Optimizer
    """AdamW."""
    scheduler: timm.scheduler.CosineLRScheduler
    """Warm-up and cosine, by step."""
    team: process_group.Team
    """Who trains."""
    tail: row_targets.TailDecoder | None
    """What the cache's coded tail stands on, on the team's device."""
    run_ahead: int
    """Steps that the host may have given the device without having read of them; 0 where it asks after each."""
    gate: finite_gate.Gate | None
    """Keeps what is not finite out on the device; None where the host does, before each update."""

    @property
    def device(self) -> torch.device:
        """Where."""
        return self.team.device

    def no_sync(self) -> contextlib.AbstractContextManager[object]:
        """Backward passes whose gradients the ranks do not exchange yet."""
        if isinstance(self.heads, DistributedDataParallel):
            return self.heads.no_sync()
        return contextlib.nullcontext()

    def step_of(self, number: int, keys: tuple[str, ...]) -> pending_steps.Step:
        """What the host knows of a step."""
        return pending_steps.Step(number, keys, float(self.optimizer.param_groups[0]["lr"]))


class _Heads(torch.nn.Module):
    """From uint8 views to logits, in one module.

    DistributedDataParallel wraps it, and compiling it fuses mix and normalisation with the first layer.
    """

    def __init__(self, network: torch.nn.Module, settings: student_config.StudentConfig, device: torch.device) -> None:
        super().__init__()
        self.network = network
        # Not buffers, which ranks would send each other.
        self.mean_C11, self.std_C11 = (
            torch.tensor(value, device=device).view(3, 1, 1) * 255 for value in (settings.mean, settings.std)
        )

    def forward(self, pixels_B3HW: Tensor, mixed: batch_mix.Mix | None) -> tuple[Tensor, Tensor | None]:
        views_B3HW = batch_mix.pixels(pixels_B3HW, mixed) if mixed else pixels_B3HW.float()
        return student_model.heads(self.network, views_B3HW.sub_(self.mean_C11).div_(self.std_C11))


def make(
    settings: student_config.StudentConfig,
    student: student_config.Student,
    *,
    num_classes: int,
    length: schedule.Schedule,
    team: process_group.Team,
    tail: row_targets.TailDecoder | None = None,
    begin: fine_tuning.Start | None = None,
    run_ahead: int | None = None,
) -> Learner:
    """A student with initial weights, or those of another, with its optimiser, schedule and average.

    Args:
        settings: model and recipe.
        student: whether it has a token, and its seed.
        num_classes: of its heads.
        length: of the schedule.
        team: who trains.
        tail: what the cache's coded tail stands on.
        begin: weights to begin with.
        run_ahead: steps that the host may be ahead of the device; by default 0 on a CPU, `outcome.RUN_AHEAD` on a GPU.

    Raises:
        ConfigError: the model cannot be made, or is not that of the weights to begin with.
    """
    arithmetic.use_exact_float32()
    network = student_model.build(settings, student, num_classes)
    if begin:
        fine_tuning.load(network, begin)
    network = network.to(team.device)
    if run_ahead is None:
        run_ahead = pending_steps.RUN_AHEAD if team.device.type == "cuda" else 0
    # Fused is what a gate can guard. On a CPU, torch's plain form stays: its rounding is that of every run so far.
    form: dict[str, Any] = {"fused": True} if run_ahead else {}
    # Leaves out biases, norms, and what timm's model names: tokens and positions.
    optimizer = timm.optim.create_optimizer_v2(
        network, opt="adamw", lr=settings.peak_lr, weight_decay=settings.weight_decay, **form
    )
    scheduler = timm.scheduler.CosineLRScheduler(
        optimizer,
        t_initial=length.total,
        lr_min=settings.min_lr,
        warmup_t=length.warmup,
        warmup_lr_init=settings.warmup_lr,
        t_in_epochs=False,
    )
    ema = timm.utils.ModelEmaV3(network, decay=settings.ema_decay, use_warmup=True)
    return Learner(
        network=network,
        heads=_heads(network, settings, student, team),
        ema=ema,
        optimizer=optimizer,
        scheduler=scheduler,
        team=team,
        tail=tail.to(team.device) if tail else None,
        run_ahead=run_ahead,
        gate=finite_gate.Gate(optimizer, ema, team.device) if run_ahead else None,
    )


def _heads(
    network: torch.nn.Module,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    team: process_group.Team,
) -> torch.nn.Module:
    heads: torch.nn.Module = _Heads(network, settings, team.device)
    if settings.compile:
        # In place: names of weights stay. Batches are padded to one size, whatever they hold.
        heads.compile(dynamic=False)
    if not team.launched:
        return heads
    with team.peers():
        return DistributedDataParallel(
            heads,
            device_ids=[team.device] if team.device.type == "cuda" else None,
            # The one case in which weights have no part in the loss: a token that nothing teaches.
            find_unused_parameters=student.has_token and student.kind == "none",
        )


def restore(who: Learner, folder: Path) -> tuple[int, list[tuple[int, curve.Point]]]:
    """Go back to the newest sound checkpoint, if there is one: steps done, and the curves so far.

    One that is damaged is named and removed, and the one before it is taken; with neither, the run begins.

    Raises:
        ConfigError: the ranks see different checkpoints.
    """
    total, size = who.scheduler.t_initial, sum(weights.nbytes for weights in who.network.state_dict().values())
    found = checkpoint.read(folder, lambda state: state_checks.reason(state, who.network, who.optimizer, total), size)
    state = found.state
    step, points = (state.step, state.points) if state else (0, [])
    # In float64, so many bits of a digest add up exactly.
    seen = [step, int(found.sha256[:8] or "0", 16)]
    unlike = who.team.sums(seen) != [value * who.team.size for value in seen]
    cure = "Use one that all machines share"
    who.team.agree(
        errors.ConfigError.for_value("train", "--scratch", "a folder that all ranks see", folder, cure)
        if unlike
        else None
    )
    if who.team.first:
        _drop(found, f"The run goes on from {folder / checkpoint.BEFORE}, after {step} of {total} steps")
    if state:
        who.network.load_state_dict(state.model)
        who.ema.module.load_state_dict(state.ema)
        who.optimizer.load_state_dict(_of_this_device(state.optimizer, who.optimizer))
    return step, points


def _drop(found: checkpoint.Read, on: str) -> None:
    """Name what is damaged, and remove it: it must not be stepped aside onto a sound one."""
    for path, reason in found.damaged:
        _LOG.warning("%s: %s. It is removed. %s", path, reason, on if found.state else "The run begins anew")
        files.remove(path)


def _of_this_device(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state for the form it has here: a run may go on where there is a GPU, or none."""
    forms = ("fused", "foreach", "capturable")
    groups = [
        {**group, **{name: own[name] for name in forms}}
        for group, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {"state": state["state"], "param_groups": groups}


def save(who: Learner, folder: Path, step: int, points: list[tuple[int, curve.Point]]) -> None:
    """Write a checkpoint.

    Raises:
        NumericsError: a number in it is not finite; the last checkpoint stays.
    """
    checkpoint.save(
        folder,
        checkpoint.State(
            step=step,
            model=who.network.state_dict(),
            ema=who.ema.module.state_dict(),
            optimizer=who.optimizer.state_dict(),
            points=points,
        ),
    )
