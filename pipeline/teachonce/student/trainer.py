"""A student in training: its weights, optimiser, schedule and average, made, stepped, saved and loaded as one.

Shapes: B views, C classes.
"""

import contextlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm.optim
import timm.scheduler
import timm.utils
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from teachonce.core import arithmetic, seeding
from teachonce.format import row_expansion
from teachonce.student import (
    batch_mix,
    batching,
    checkpoint,
    curve,
    determinism,
    distillation_loss,
    fine_tuning,
    finite_gate,
    forward_pass,
    microbatches,
    pending_steps,
    process_group,
    schedule,
    student_model,
    student_spec,
)

_LOG = logging.getLogger(__name__)


class Trainer:
    """Trains one student, on each of the ranks that share its batches."""

    def __init__(
        self,
        student: student_spec.Student,
        *,
        num_classes: int,
        length: schedule.Schedule,
        world: process_group.World,
        tail: row_expansion.TailDecoder | None = None,
        initial: fine_tuning.InitialWeights | None = None,
        run_ahead: int | None = None,
    ) -> None:
        """Begin with initial weights, or with those of another student.

        Args:
            student: its model, its kind of distillation and how it is trained.
            num_classes: of its heads.
            length: of the run.
            world: who trains.
            tail: what the cache's coded tail stands on; None where rows have none.
            initial: weights to begin with; None where they are drawn.
            run_ahead: steps that the host may be ahead of the device; by default 0 on a CPU, `pending_steps.RUN_AHEAD`
                on a GPU.

        Raises:
            ConfigError: the model cannot be made, or is not that of the weights to begin with.
        """
        arithmetic.use_exact_float32()
        self.student, self.length, self.world = student, length, world
        self.device = world.device
        if run_ahead is None:
            run_ahead = pending_steps.RUN_AHEAD if self.device.type == "cuda" else 0
        self.run_ahead = run_ahead
        """Steps that the host may have given the device without having read of them; 0 where it asks after each."""
        self.network = student_model.create_model(student, num_classes)
        """The weights that are trained."""
        if initial:
            fine_tuning.load(self.network, initial)
        self.network = self.network.to(self.device)
        self.optimizer, self.scheduler = _optimizer(self.network, student, length, fused=bool(run_ahead))
        # With a warm-up: at the full decay of DeiT an average would hold its initial weights for tens of thousands of
        # steps.
        self.ema = timm.utils.ModelEmaV3(self.network, decay=student.config.ema_decay, use_warmup=True)
        """Their average, which is evaluated."""
        self.forward_pass = forward_pass.build_forward(self.network, student, world)
        """Views to both heads' logits; under a launcher, its backward pass averages the ranks' gradients."""
        self.gate = finite_gate.Gate(self.optimizer, self.ema, self.device) if run_ahead else None
        """Keeps what is not finite out on the device; None where the host does, before each update."""
        self._tail = tail.to(self.device) if tail else None

    def train_step(
        self, batch: batching.Batch, step: int, *, global_count: batching.ViewCount | None = None
    ) -> dict[str, Tensor]:
        """One step of gradient descent.

        Args:
            batch: this rank's samples and the teacher's rows.
            step: number within the run, which seeds stochastic depth and places the schedule.
            global_count: what the global batch holds; by default what this one does.

        Returns:
            What this batch adds to the global means before the step, by their names in the curves: scalars. Those of
            labels are missing where the global batch has none.

        Raises:
            NumericsError: loss or gradient are not finite; the weights are those before the step. With a gate nothing
                is raised here, and `gate.shut` tells.
        """
        world, config = self.world, self.student.config
        # Seeded anew in each step, by its number: so a checkpoint needs no generator's state, and a run that goes on
        # from one draws what an undisturbed run draws.
        seeding.seed_torch("step", self.student.spec.seed, step, *([world.rank] if world.rank else []))
        # By the number of the step, not by a count of calls: so neither schedule nor average has a state to save.
        self.scheduler.step_update(step)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        global_count, batch = global_count or batch.count, batch.to(self.device)
        terms: list[dict[str, Tensor]] = []
        parts = microbatches.split(batch, config.accumulate)
        with determinism.deterministic_kernels(self.device, always=config.deterministic):
            for part in parts:
                # Ranks exchange their gradients once a step, with the last part's backward pass.
                with contextlib.nullcontext() if part is parts[-1] else self._no_sync():
                    terms.append(self._backward(part, global_count))
        means = {name: torch.stack([each[name] for each in terms]).sum() for name in terms[0]}
        gradients = [weights.grad for weights in self.network.parameters() if weights.grad is not None]
        # One number for all gradients, which is finite only if each of them is: one question to the device, not
        # hundreds.
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.gate:
            self.gate.update(self.network, step, norm)
            return means
        if not math.isfinite(float(norm)):
            pending_steps.raise_non_finite(world, self.step_info(step, batch.keys), float(means["loss"]))
        self.optimizer.step()
        self.ema.update(self.network, step)
        return means

    def _backward(self, batch: batching.Batch, global_count: batching.ViewCount) -> dict[str, Tensor]:
        """Add the gradient of a part of the batch; what it adds to the means."""
        config, label_B, mix = self.student.config, batch.label, batch.mix
        # Shares of the global means, which is why padding (weight 0) and the size of a part change nothing.
        share_B = batch.weight / global_count.views
        label_share_B = batch.weight * batch_mix.has_label(label_B, mix) / max(global_count.labelled, 1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            class_BC, dist_BC = self.forward_pass(batch.pixels, mix)
        num_classes = class_BC.shape[1]
        loss = distillation_loss.weighted_total(
            class_BC.float(),
            None if dist_BC is None else dist_BC.float(),
            batch_mix.mix_labels(label_B, num_classes, config.smoothing, mix),
            distillation_loss.teacher_target(batch.rows, self.student.spec, num_classes, self._tail),
            share_B,
            spec=self.student.spec,
            label_share_B=label_share_B,
        )
        means = {"loss": loss.total.detach()}
        if global_count.labelled:
            means["label_loss"] = loss.label
            means["top1"] = ((class_BC.detach().argmax(dim=1) == label_B) * label_share_B).sum()
        if loss.teacher is not None:
            means["teacher_loss"] = loss.teacher
        # DistributedDataParallel averages over the ranks, where the shares want a sum. The gradient of a loss that is
        # not finite may be finite, but must not be taken for a gradient: multiplied by NaN, it cannot be.
        factor = torch.where(means["loss"].isfinite(), float(self.world.size), math.nan)
        (loss.total * factor).backward()
        return means

    def _no_sync(self) -> contextlib.AbstractContextManager[object]:
        """Backward passes whose gradients the ranks do not exchange yet."""
        if isinstance(self.forward_pass, DistributedDataParallel):
            return self.forward_pass.no_sync()
        return contextlib.nullcontext()

    def step_info(self, step: int, keys: tuple[str, ...]) -> pending_steps.StepInfo:
        """What the host knows of a step that it has given to the device."""
        return pending_steps.StepInfo(step, keys, float(self.optimizer.param_groups[0]["lr"]))

    def save(self, folder: Path, steps_done: int, points: list[tuple[int, curve.Point]]) -> None:
        """Write a checkpoint.

        Args:
            folder: of the run.
            steps_done: how many steps made these weights.
            points: of the curves up to that step.

        Raises:
            NumericsError: a number in it is not finite; the last checkpoint stays.
        """
        checkpoint.save(
            folder,
            checkpoint.TrainingState(
                step=steps_done,
                model=self.network.state_dict(),
                ema=self.ema.module.state_dict(),
                optimizer=self.optimizer.state_dict(),
                points=points,
            ),
        )

    def load(self, state: checkpoint.TrainingState) -> None:
        """Be what a checkpoint holds."""
        self.network.load_state_dict(state.model)
        self.ema.module.load_state_dict(state.ema)
        self.optimizer.load_state_dict(_for_this_device(state.optimizer, self.optimizer))


def _optimizer(
    network: torch.nn.Module, student: student_spec.Student, length: schedule.Schedule, *, fused: bool
) -> tuple[torch.optim.Optimizer, timm.scheduler.CosineLRScheduler]:
    """AdamW with warm-up and cosine, by step."""
    config = student.config
    # Fused is what a gate can guard. On a CPU, torch's plain form stays: its rounding is that of every run so far.
    options: dict[str, Any] = {"fused": True} if fused else {}
    # Leaves out biases, norms, and what timm's model names: tokens and positions.
    optimizer = timm.optim.create_optimizer_v2(
        network, opt="adamw", lr=config.peak_lr, weight_decay=config.weight_decay, **options
    )
    scheduler = timm.scheduler.CosineLRScheduler(
        optimizer,
        t_initial=length.total,
        lr_min=config.min_lr,
        warmup_t=length.warmup,
        warmup_lr_init=config.warmup_lr,
        t_in_epochs=False,
    )
    return optimizer, scheduler


def _for_this_device(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state with the options that it has here: a run may go on where there is a GPU, or none."""
    options = ("fused", "foreach", "capturable")
    groups = [
        {**group, **{name: present[name] for name in options}}
        for group, present in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {"state": state["state"], "param_groups": groups}
