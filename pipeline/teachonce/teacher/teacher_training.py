"""Train the teacher here: a short, honest recipe for data no published network knows.

AdamW, linear warm-up, cosine decay, label smoothing: timm's parts, in one plain loop.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm.optim
import timm.scheduler
import torch
from torch.nn import functional as F

from teachonce.core import arithmetic, errors, hashing, progress, seeding
from teachonce.shards import decode, index, sample_reader
from teachonce.teacher import predictor, teacher_config
from teachonce.views import draw, render, view_policy

_CURE = "Correct mean and std, lower weights.lr, or try precision: float32"


def train_network(
    network: torch.nn.Module,
    settings: teacher_config.TeacherConfig,
    recipe: teacher_config.TrainedWeights,
    shards: index.Shards,
    device: torch.device,
    *,
    where: Path = teacher_config.FOLDER,
) -> dict[str, float]:
    """Train a network in place on the training images that have a label.

    Args:
        network: freshly initialised.
        settings: input size and normalisation.
        recipe: how to train.
        shards: the data.
        device: that trains.
        where: file of the settings, for the message.

    Returns:
        Loss (nats) and top-1 (share) over the last epoch's augmented images.

    Raises:
        ConfigError: no training image has a label, or one alone.
        NumericsError: the loss is not finite.
    """
    images = sample_reader.count_labelled(shards, "train")
    if images < teacher_config.MIN_BATCH_SIZE:
        cure = "Take weights that were trained elsewhere"
        count = "one training image alone" if images else "no training image"
        condition = f"checkpoint or pretrained where {count} has a label"
        raise errors.ConfigError.for_value(where, "weights.kind", condition, "fit", cure)
    arithmetic.use_exact_float32()
    network.to(device).train()
    steps = _steps(images, recipe.batch_size)
    optimizer = timm.optim.create_optimizer_v2(network, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)
    scheduler = timm.scheduler.CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * steps,
        warmup_t=recipe.warmup_epochs * steps,
        warmup_lr_init=0.0,
        t_in_epochs=False,
    )
    normal = predictor.Normaliser(settings.mean, settings.std, device)
    totals: dict[str, float] = {}
    bar = progress.bar(range(recipe.epochs), label="teacher: fit", total=recipe.epochs, unit="epoch")
    for epoch in bar:
        loss, correct, seen = 0.0, 0, 0
        for step, (pixels, labels) in enumerate(_batches(shards, settings.size, recipe, epoch)):
            seeding.seed_torch("teacher step", recipe.seed, epoch, step)
            scheduler.step_update(epoch * steps + step)
            batch_loss, batch_correct = _step(network, optimizer, normal(pixels), labels.to(device), recipe.smoothing)
            if not math.isfinite(batch_loss):
                raise errors.NumericsError(
                    "teacher", f"loss of epoch {epoch}, step {step} is not finite", "Lower weights.lr"
                )
            loss, correct, seen = loss + batch_loss * len(labels), correct + batch_correct, seen + len(labels)
        totals = {"loss": loss / seen, "top1": correct / seen}
        bar.set_postfix({name: f"{value:.3f}" for name, value in totals.items()}, refresh=False)
    network.eval()
    return totals


def _step(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float,
) -> tuple[float, int]:
    logits = network(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach()), int((logits.argmax(dim=1) == labels).sum())


def _steps(images: int, batch_size: int) -> int:
    """Batches of an epoch: an image that would be left alone belongs to the one before."""
    whole, rest = divmod(images, batch_size)
    return whole + (rest >= teacher_config.MIN_BATCH_SIZE)


def _batches(
    shards: index.Shards, size: int, recipe: teacher_config.TrainedWeights, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented images of one epoch: uint8 (B, 3, H, W) and int64 (B,); tars in turn, rows of a tar shuffled.

    The last batch may have an image more than the others: batch normalisation takes no statistics of one alone.
    """
    pixels: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    entries = shards.index.of_split("train")
    for place in hashing.permutation(len(entries), "teacher tars", recipe.seed, epoch):
        rows = list(sample_reader.verified_samples(entries[place], shards.path(entries[place])))
        for row in hashing.permutation(len(rows), "teacher rows", recipe.seed, epoch, int(place)):
            sample = rows[row]
            if sample.label == index.UNLABELLED:
                continue
            pixels.append(_view(sample, recipe.policy, epoch, size))
            labels.append(sample.label)
            if len(labels) == recipe.batch_size + teacher_config.MIN_BATCH_SIZE:
                yield _stacked(pixels[: recipe.batch_size], labels[: recipe.batch_size])
                pixels, labels = pixels[recipe.batch_size :], labels[recipe.batch_size :]
    if labels:
        yield _stacked(pixels, labels)


def _stacked(pixels: Sequence[npt.NDArray[np.uint8]], labels: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.stack(pixels)), torch.tensor(labels)


def _view(
    sample: sample_reader.Sample, augmentation: view_policy.Policy, epoch: int, size: int
) -> npt.NDArray[np.uint8]:
    image = decode.rgb(sample.image, sample.key)
    return render.to_pixels(image, draw.view_params(augmentation, sample.key, epoch), size)


def top1_accuracy(
    teacher: predictor.Predictor,
    shards: index.Shards,
    split: str,
    *,
    size: int,
    evaluation: view_policy.Policy,
    batch_size: int,
) -> float | None:
    """Share of a split's labelled images whose likeliest class is the label; None where there are none.

    Raises:
        NumericsError: a logit is not finite: the likeliest class would be the first one.
    """
    correct = 0
    images = sample_reader.count_labelled(shards, split)
    if not images:
        return None
    entries = shards.index.of_split(split)
    for entry in progress.bar(entries, label=f"teacher: {split} accuracy", total=len(entries), unit="tar"):
        rows = list(sample_reader.verified_samples(entry, shards.path(entry)))
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            logits = teacher.logits(np.stack([_view(sample, evaluation, 0, size) for sample in part]))
            if not np.isfinite(logits).all():
                raise errors.NumericsError("teacher", f"logits of images of {entry.url} are not finite", _CURE)
            labels = np.array([sample.label for sample in part])
            correct += int((logits.argmax(axis=1) == labels).sum())
    return correct / images
