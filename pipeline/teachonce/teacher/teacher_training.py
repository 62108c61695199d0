"""Train the teacher here: from random weights, or fine-tune published ones; a short, plain recipe for either.

AdamW, linear warm-up, cosine decay, label smoothing: timm's parts, in one plain loop. What each epoch ends with is
saved, so that a training that was killed goes on from there and ends with the same weights.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from teachonce.core import arithmetic, errors, graceful_stop, hashing, import_closure, locks, progress, seeding
from teachonce.shards import index, sample_reader
from teachonce.teacher import (
    predictor,
    teacher_config,
    training_images,
    training_phases,
    training_state,
)
from teachonce.views import view_policy

MODULE = "teachonce/teacher/teacher_training.py"
"""This one, whose code and that of its imports decides the weights."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training: of what, on which images, and where it is saved meanwhile."""

    settings: teacher_config.TeacherConfig
    """Architecture, input size and normalisation."""
    recipe: teacher_config.LocalTraining
    """How to train."""
    shards: index.Shards
    """The images."""
    evaluation: view_policy.Policy
    """The crop for images that are held back."""
    scratch: Path
    """Parent of the trainings' folders."""
    where: Path = teacher_config.FOLDER
    """File of the settings, for the message of a refusal."""

    def folder(self, network: torch.nn.Module) -> Path:
        """The training's own: its name changes with anything that changes the weights.

        Args:
            network: with the weights that it starts from.
        """
        initial = [[name, hashing.sha256(_tensor_bytes(tensor))] for name, tensor in network.state_dict().items()]
        settings = self.settings.model_dump(mode="json", include={"architecture", "arguments", "size", "mean", "std"})
        name = hashing.json_digest(
            {
                "settings": settings,
                "recipe": self.recipe.model_dump(mode="json", exclude={"start"}),
                "evaluation": self.evaluation.model_dump(mode="json"),
                # By their numbers: the same weights under another path are the same start.
                "initial": initial,
                "shards": [shard.sha256 for shard in self.shards.index.of_split("train")],
                "code": import_closure.code_digest(MODULE),
            }
        )
        return self.scratch / name


def train_network(network: torch.nn.Module, job: TrainingJob, device: torch.device) -> dict[str, float]:
    """Train a network in place on the training images that have a label, from where an earlier run was cut off.

    Args:
        network: with the weights that it starts from.
        job: how, and on what.
        device: that trains.

    Returns:
        Facts of the epoch whose weights are taken: the last one, or the best on the images that are held back.

    Raises:
        ConfigError: too few training images have a label.
        NumericsError: the loss is not finite.
        StoppedError: a signal asked for it; all epochs that were done are saved.
    """
    _require_labels(job)
    arithmetic.use_exact_float32()
    held_back: frozenset[str] = frozenset()
    if isinstance(job.recipe, teacher_config.FinetunedWeights):
        held_back = training_images.held_back_keys(job.shards)
        if not held_back:
            _LOG.warning("teacher: no class has an image to hold back, so that the last epoch's weights are taken")
    folder = job.folder(network)
    with locks.hold_folder(folder), graceful_stop.GracefulStop() as stop:
        training = _Training(network.to(device), job, device, held_back)
        training.go_on(folder)
        training.run(folder, stop)
    network.eval()
    return training.facts()


class _Training:
    """A training between two epochs."""

    def __init__(
        self, network: torch.nn.Module, job: TrainingJob, device: torch.device, held_back: frozenset[str]
    ) -> None:
        self._network, self._job, self._device = network, job, device
        self._images = training_images.TrainingImages(job.shards, job.recipe, job.settings.size, held_back)
        self._steps = self._images.steps()
        self._normalise = predictor.Normaliser(job.settings.mean, job.settings.std, device)
        self._phases = training_phases.planned_phases(job.recipe)
        self._total = sum(phase.epochs for phase in self._phases)
        self._points: list[training_state.Point] = []
        self._best: dict[str, torch.Tensor] = {}
        self._optimizer_state: dict[str, object] | None = None

    def go_on(self, folder: Path) -> None:
        """Take what an earlier run saved, if there is something."""
        state = training_state.read(folder, self._network, self._total)
        if state:
            self._network.load_state_dict(state.model)
            self._points, self._best, self._optimizer_state = state.points, state.best, state.optimizer

    def run(self, folder: Path, stop: graceful_stop.GracefulStop) -> None:
        """Train to the end, and take the best weights.

        Raises:
            NumericsError: the loss is not finite.
            StoppedError: a signal asked for it.
        """
        kind = self._job.recipe.kind
        bar = progress.bar(
            range(self._total), label=f"teacher: {kind}", total=self._total, unit="epoch", initial=len(self._points)
        )
        with bar:
            for phase in self._phases:
                self._run_phase(phase, folder, stop, bar)
        if self._best:
            self._network.load_state_dict(self._best)

    def _run_phase(
        self, phase: training_phases.Phase, folder: Path, stop: graceful_stop.GracefulStop, bar: "tqdm[int]"
    ) -> None:
        done = len(self._points)
        if done >= phase.first + phase.epochs:
            return
        optimizer = training_phases.PhaseOptimizer(self._network, phase, self._job.recipe, self._steps)
        if done > phase.first and self._optimizer_state:
            optimizer.optimizer.load_state_dict(self._optimizer_state)
        for epoch in range(done, phase.first + phase.epochs):
            if self._is_exhausted(phase):
                return
            point = self._train_epoch(epoch, optimizer, phase.rate, stop)
            if self._images.held_back:
                point |= self._score_held_back()
            self._points.append(point)
            if self._best_epoch() == epoch + 1:
                self._best = training_state.copy_weights(self._network)
            training_state.save(folder, self._state(optimizer.optimizer))
            bar.set_postfix({name: f"{value:.3f}" for name, value in point.items()}, refresh=False)
            bar.update()

    def _state(self, optimizer: torch.optim.Optimizer) -> training_state.TeacherState:
        return training_state.TeacherState(self._network.state_dict(), optimizer.state_dict(), self._points, self._best)

    def _train_epoch(
        self,
        epoch: int,
        optimizer: training_phases.PhaseOptimizer,
        rate: str,
        stop: graceful_stop.GracefulStop,
    ) -> training_state.Point:
        recipe = self._job.recipe
        training_phases.set_training_mode(self._network, recipe)
        loss, correct, images_done = 0.0, 0, 0
        for step, (pixels, labels) in enumerate(self._images.epoch(epoch)):
            if stop.requested:
                what = f"saved after {len(self._points)} of {self._total} epochs"
                raise errors.StoppedError("teacher", what, "Run the same command again to go on from there")
            # Dropout and stochastic depth draw from torch's generator: seeded for each step, a step's masks depend on
            # its position alone, not on how many numbers the steps before it took.
            seeding.seed_torch("teacher step", recipe.seed, epoch, step)
            optimizer.set_rate(epoch * self._steps + step)
            batch_loss, batch_correct = self._train_step(optimizer.optimizer, pixels, labels)
            # Asked at each step: once a weight is not finite, all that follows is lost time.
            if not math.isfinite(batch_loss):
                raise errors.NumericsError(
                    "teacher", f"loss of epoch {epoch}, step {step} is not finite", f"Lower weights.{rate}"
                )
            loss += batch_loss * len(labels)
            correct += batch_correct
            images_done += len(labels)
        return {"loss": loss / images_done, "top1": correct / images_done}

    def _train_step(
        self, optimizer: torch.optim.Optimizer, pixels: torch.Tensor, labels: torch.Tensor
    ) -> tuple[float, int]:
        labels = labels.to(self._device)
        logits = self._network(self._normalise(pixels))
        loss = F.cross_entropy(logits, labels, label_smoothing=self._job.recipe.smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach()), int((logits.argmax(dim=1) == labels).sum())

    @torch.no_grad()
    def _score_held_back(self) -> training_state.Point:
        """Mean loss and top-1 on the images that are held back, of the plain label."""
        job, held_back = self._job, self._images.held_back
        self._network.eval()
        loss, correct = 0.0, 0
        for pixels, targets in training_images.plain_batches(
            job.shards, held_back, job.evaluation, job.settings.size, job.recipe.batch_size
        ):
            labels = targets.to(self._device)
            logits = self._network(self._normalise(pixels))
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(dim=1) == labels).sum())
        return {"held_back_loss": loss / len(held_back), "held_back_top1": correct / len(held_back)}

    def _best_epoch(self) -> int:
        """The epoch whose weights are taken, counted from 1; 0 where no image is held back, or none was trained."""
        if not self._points or not self._images.held_back:
            return 0
        losses = [point["held_back_loss"] for point in self._points]
        return losses.index(min(losses)) + 1

    def _is_exhausted(self, phase: training_phases.Phase) -> bool:
        """Whether so many epochs of this phase were no better that the others are not waited for."""
        recipe = self._job.recipe
        if not isinstance(recipe, teacher_config.FinetunedWeights) or phase.head_only or not self._images.held_back:
            return False
        return len(self._points) - max(self._best_epoch(), phase.first) >= recipe.patience

    def facts(self) -> dict[str, float]:
        """What the epoch gave whose weights are taken, as the teacher's record has it; of a fine-tuning also which."""
        best = self._best_epoch()
        point = dict(self._points[best - 1])
        of_training = {f"train_{name}": point.pop(name) for name in ("loss", "top1")}
        if not isinstance(self._job.recipe, teacher_config.FinetunedWeights):
            return of_training
        return {
            **of_training,
            **point,
            "held_back_images": len(self._images.held_back),
            "epochs": len(self._points),
            "chosen_epoch": best or len(self._points),
        }


def _require_labels(job: TrainingJob) -> None:
    """Refuse images that nothing can be trained on, by count of labels."""
    images = sample_reader.count_labelled(job.shards, "train")
    least = 1 if isinstance(job.recipe, teacher_config.FinetunedWeights) else teacher_config.MIN_BATCH_SIZE
    if images >= least:
        return
    cure = "Take weights that were trained elsewhere"
    count = "one training image alone" if images else "no training image"
    condition = f"checkpoint or pretrained where {count} has a label"
    raise errors.ConfigError.for_value(job.where, "weights.kind", condition, job.recipe.kind, cure)


def _tensor_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
