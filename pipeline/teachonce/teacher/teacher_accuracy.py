"""How often a teacher is right: top-1 over a split, of the weights that were saved."""

import numpy as np

from teachonce.core import errors, progress
from teachonce.shards import index, sample_reader
from teachonce.teacher import predictor, training_images
from teachonce.views import view_policy

_NOT_FINITE_CURE = "Correct mean and std, lower weights.lr, or try precision: float32"


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
            views = [training_images.render_view(sample, evaluation, 0, size) for sample in batch]
            logits = teacher.logits(np.stack(views))
            if not np.isfinite(logits).all():
                raise errors.NumericsError(
                    "teacher", f"logits of images of {entry.url} are not finite", _NOT_FINITE_CURE
                )
            labels = np.array([sample.label for sample in batch])
            correct += int((logits.argmax(axis=1) == labels).sum())
    return correct / images
