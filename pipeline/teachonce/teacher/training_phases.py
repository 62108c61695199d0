"""The parts of a teacher's training: which layers learn, for how long and at which rates."""

from dataclasses import dataclass

import timm.optim
import timm.scheduler
import torch

from teachonce.teacher import new_head, teacher_config


@dataclass(frozen=True, slots=True)
class Phase:
    """Epochs that share an optimizer."""

    first: int
    """The first of its epochs, counted over all phases from 0."""
    epochs: int
    """How many there are."""
    warmup_epochs: int
    """Of these, how many the rate rises in."""
    rate: str
    """Key of the peak learning rate in the recipe."""
    head_only: bool = False
    """Whether all layers but the head rest."""


def planned_phases(recipe: teacher_config.LocalTraining) -> tuple[Phase, ...]:
    """The phases of a recipe, in turn; none is empty."""
    if isinstance(recipe, teacher_config.TrainedWeights):
        return (Phase(0, recipe.epochs, recipe.warmup_epochs, "lr"),)
    head = Phase(0, recipe.head_epochs, 0, "head_lr", head_only=True)
    whole = Phase(recipe.head_epochs, recipe.epochs, recipe.warmup_epochs, "lr")
    return tuple(phase for phase in (head, whole) if phase.epochs)


class PhaseOptimizer:
    """AdamW of one phase, and the rate of each of its steps: a linear rise, then a cosine to zero."""

    def __init__(
        self, network: torch.nn.Module, phase: Phase, recipe: teacher_config.LocalTraining, steps: int
    ) -> None:
        """Let the layers learn that this phase trains, and no others.

        Args:
            network: on its device.
            phase: which.
            recipe: rates and decay.
            steps: of an epoch.
        """
        head = new_head.prefix(network) if phase.head_only else ("",)
        for name, weight in network.named_parameters():
            weight.requires_grad_(name.startswith(head))
        self.optimizer = timm.optim.create_optimizer_v2(
            network, opt="adamw", lr=getattr(recipe, phase.rate), weight_decay=recipe.weight_decay
        )
        """AdamW over the weights that learn."""
        self._scheduler = timm.scheduler.CosineLRScheduler(
            self.optimizer,
            t_initial=phase.epochs * steps,
            warmup_t=phase.warmup_epochs * steps,
            warmup_lr_init=0.0,
            t_in_epochs=False,
        )
        self._first_step = phase.first * steps

    def set_rate(self, step: int) -> None:
        """Take the rate of a step, counted from the first of the whole training."""
        self._scheduler.step_update(step - self._first_step)


def set_training_mode(network: torch.nn.Module, recipe: teacher_config.LocalTraining) -> None:
    """Dropout and stochastic depth as in training; batch norms only where they learn their statistics here."""
    network.train()
    if isinstance(recipe, teacher_config.TrainedWeights):
        return
    # A few hundred images have worse statistics than the million that the published weights are of, and batches of few
    # images worse still.
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the class of all batch norms
            module.eval()
