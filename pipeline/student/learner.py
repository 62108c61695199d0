"""A student in training: its weights, optimiser, schedule and average, made, saved and restored as one."""

from dataclasses import dataclass
from pathlib import Path

import timm.optim
import timm.scheduler
import timm.utils
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pipeline.base import errors
from pipeline.cache import target
from pipeline.student import checkpoint, config, curve, model, ranks, schedule, start


@dataclass(slots=True)
class Learner:
    """A student in training."""

    network: torch.nn.Module
    """The weights that are trained."""
    heads: torch.nn.Module
    """Images to both heads' logits; with several ranks, its backward pass averages their gradients."""
    ema: timm.utils.ModelEmaV3
    """The weights' average."""
    optimizer: torch.optim.Optimizer
    """AdamW."""
    scheduler: timm.scheduler.CosineLRScheduler
    """Warm-up and cosine, by step."""
    team: ranks.Team
    """Who trains."""
    tail: target.Sketch | None
    """What the cache's coded tail stands on, on the team's device."""
    mean_C11: Tensor
    """float32 (3, 1, 1): subtracted from pixels of 0…255; on the team's device."""
    std_C11: Tensor
    """float32 (3, 1, 1): divides what is left."""

    @property
    def device(self) -> torch.device:
        """Where."""
        return self.team.device


class _Heads(torch.nn.Module):
    """`model.heads` as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        return model.heads(self.network, images_B3HW)


def make(
    settings: config.StudentConfig, student: config.Student, *, num_classes: int, length: schedule.Schedule,
    team: ranks.Team, tail: target.Sketch | None = None, begin: start.Start | None = None,
) -> Learner:  # fmt: skip
    """A student with initial weights, or those of another, with its optimiser, schedule and average.

    Raises:
        ConfigError: the model cannot be made, or is not that of the weights to begin with.
    """
    network = model.build(settings, student, num_classes)
    if begin:
        start.load(network, begin)
    network = network.to(team.device)
    # Leaves out biases, norms, and what timm's model names: tokens and positions.
    optimizer = timm.optim.create_optimizer_v2(
        network, opt="adamw", lr=settings.peak_lr, weight_decay=settings.weight_decay
    )
    scheduler = timm.scheduler.CosineLRScheduler(
        optimizer, t_initial=length.total, lr_min=settings.min_lr, warmup_t=length.warmup,
        warmup_lr_init=settings.warmup_lr, t_in_epochs=False,
    )  # fmt: skip
    ema = timm.utils.ModelEmaV3(network, decay=settings.ema_decay, use_warmup=True)
    heads: torch.nn.Module = _Heads(network)
    if team.size > 1:
        with team.peers():
            heads = DistributedDataParallel(
                heads, device_ids=[team.device] if team.device.type == "cuda" else None,
                # The one case in which weights have no part in the loss: a token that nothing teaches.
                find_unused_parameters=student.has_token and student.kind == "none",
            )  # fmt: skip
    mean_C11, std_C11 = (
        torch.tensor(value, device=team.device).view(3, 1, 1) * 255 for value in (settings.mean, settings.std)
    )
    return Learner(
        network, heads, ema, optimizer, scheduler, team, tail.to(team.device) if tail else None, mean_C11, std_C11
    )


def restore(who: Learner, folder: Path) -> tuple[int, list[tuple[int, curve.Point]]]:
    """Go back to the last checkpoint, if there is one: steps done, and the curves so far.

    Raises:
        ConfigError: the ranks see different checkpoints.
    """
    state = checkpoint.load(folder)
    step, points = (state.step, state.points) if state else (0, [])
    unlike = who.team.sums([step])[0] != step * who.team.size
    cure = "Use one that all machines share"
    who.team.agree(
        errors.ConfigError(errors.refusal("train", "--scratch", "a folder that all ranks see", folder, cure))
        if unlike else None
    )  # fmt: skip
    if state:
        who.network.load_state_dict(state.model)
        who.ema.module.load_state_dict(state.ema)
        who.optimizer.load_state_dict(state.optimizer)
    return step, points


def save(who: Learner, folder: Path, step: int, points: list[tuple[int, curve.Point]]) -> None:
    """Write a checkpoint.

    Raises:
        NumericsError: a number in it is not finite; the last checkpoint stays.
    """
    checkpoint.save(
        folder,
        checkpoint.State(
            step=step, model=who.network.state_dict(), ema=who.ema.module.state_dict(),
            optimizer=who.optimizer.state_dict(), points=points,
        ),
    )  # fmt: skip
