"""Train the teacher here: a short, plain recipe, for images of which no published network knows the classes.

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

_NOT_FINITE_CURE = "Correct mean and std, lower weights.lr, or try precision: float32"


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
        shards: the images.
        device: that trains.
        where: file of the settings, for the message of a refusal.

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
    steps = _steps_per_epoch(images, recipe.batch_size)
    optimizer = timm.optim.create_optimizer_v2(network, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)
    scheduler = timm.scheduler.CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * steps,
        warmup_t=recipe.warmup_epochs * steps,
        warmup_lr_init=0.0,
        t_in_epochs=False,
    )
    normalise = predictor.Normaliser(settings.mean, settings.std, device)
    totals: dict[str, float] = {}
    bar = progress.bar(range(recipe.epochs), label="teacher: fit", total=recipe.epochs, unit="epoch")
    for epoch in bar:
        loss, correct, images_done = 0.0, 0, 0
        for step, (pixels, labels) in enumerate(_epoch_batches(shards, settings.size, recipe, epoch)):
            # Dropout and stochastic depth draw from torch's generator: seeded for each step, a step's masks depend on
            # its position alone, not on how many numbers the steps before it took.
            seeding.seed_torch("teacher step", recipe.seed, epoch, step)
            scheduler.step_update(epoch * steps + step)
            batch_loss, batch_correct = _train_step(
                network, optimizer, normalise(pixels), labels.to(device), recipe.smoothing
            )
            # Asked at each step: once a weight is not finite, all that follows is lost time.
            if not math.isfinite(batch_loss):
                raise errors.NumericsError(
                    "teacher", f"loss of epoch {epoch}, step {step} is not finite", "Lower weights.lr"
                )
            loss += batch_loss * len(labels)
            correct += batch_correct
            images_done += len(labels)
        totals = {"loss": loss / images_done, "top1": correct / images_done}
        bar.set_postfix({name: f"{value:.3f}" for name, value in totals.items()}, refresh=False)
    network.eval()
    return totals


def _train_step(
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


def _steps_per_epoch(images: int, batch_size: int) -> int:
    """Batches of an epoch; a single image that is left over belongs to the last full batch."""
    full_batches, rest = divmod(images, batch_size)
    return full_batches + (rest >= teacher_config.MIN_BATCH_SIZE)


def _epoch_batches(
    shards: index.Shards, size: int, recipe: teacher_config.TrainedWeights, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented images of one epoch: uint8 (B, 3, H, W) and int64 (B,); tars in turn, rows of a tar shuffled.

    The last batch may have an image more than the others: batch normalisation takes no statistics of one alone.
    """
    # Orders come from hashes of seed, epoch and tar: the same in every process and NumPy release. Tars are read one
    # after the other, since a shuffle over all images would hold them all, or open a tar for each image.
    pixels: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    entries = shards.index.of_split("train")
    for position in hashing.permutation(len(entries), "teacher tars", recipe.seed, epoch):
        rows = list(sample_reader.verified_samples(entries[position], shards.path(entries[position])))
        for row in hashing.permutation(len(rows), "teacher rows", recipe.seed, epoch, int(position)):
            sample = rows[row]
            if sample.label == index.UNLABELLED:
                continue
            pixels.append(_render_view(sample, recipe.policy, epoch, size))
            labels.append(sample.label)
            # A batch is given out once two more images are there, so that what is left at the end is never one alone.
            if len(labels) == recipe.batch_size + teacher_config.MIN_BATCH_SIZE:
                yield _to_tensors(pixels[: recipe.batch_size], labels[: recipe.batch_size])
                pixels, labels = pixels[recipe.batch_size :], labels[recipe.batch_size :]
    if labels:
        yield _to_tensors(pixels, labels)


def _to_tensors(pixels: Sequence[npt.NDArray[np.uint8]], labels: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.stack(pixels)), torch.tensor(labels)


def _render_view(
    sample: sample_reader.Sample, augmentation: view_policy.Policy, epoch: int, size: int
) -> npt.NDArray[np.uint8]:
    image = decode.rgb_pixels(sample.image, sample.key)
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
            batch = rows[start : start + batch_size]
            logits = teacher.logits(np.stack([_render_view(sample, evaluation, 0, size) for sample in batch]))
            if not np.isfinite(logits).all():
                raise errors.NumericsError(
                    "teacher", f"logits of images of {entry.url} are not finite", _NOT_FINITE_CURE
                )
            labels = np.array([sample.label for sample in batch])
            correct += int((logits.argmax(axis=1) == labels).sum())
    return correct / images
