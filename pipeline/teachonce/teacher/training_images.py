"""The images of a teacher's own training: which of them are held back, and batches of views of the others.

Shapes: B images, H and W pixels.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from teachonce.core import hashing
from teachonce.shards import decode, index, sample_reader
from teachonce.teacher import teacher_config
from teachonce.views import draw, render, view_policy

HELD_BACK = 10
"""One training image of so many is held back from fine-tuning."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Pixels, uint8 (B, 3, H, W), and labels, int64 (B,)."""


def held_back_keys(shards: index.Shards) -> frozenset[str]:
    """A tenth of the labelled training images, at least one of two or more, by a hash of their keys.

    No image that is the last one of its class is held back, or nothing would learn that class: where every class has
    one image, none is.
    """
    labels = {
        sample.key: sample.label
        for entry in shards.index.of_split("train")
        for sample in sample_reader.verified_samples(entry, shards.path(entry))
        if sample.label != index.UNLABELLED
    }
    left = np.bincount(list(labels.values()), minlength=len(shards.index.classes))
    count = max(1, len(labels) // HELD_BACK)
    keys: set[str] = set()
    # By a hash of each key alone: in whatever order the images lie in the tars, the same ones are taken.
    for key in sorted(labels, key=lambda key: (hashing.seed64("teacher held back", key), key)):
        if len(keys) < count and left[labels[key]] > 1:
            left[labels[key]] -= 1
            keys.add(key)
    return frozenset(keys)


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """The labelled training images of one training."""

    shards: index.Shards
    """Where they lie."""
    recipe: teacher_config.LocalTraining
    """How they are augmented, shuffled and put into batches."""
    size: int
    """Side of a view in pixels."""
    held_back: frozenset[str]
    """Keys of those that nothing is trained on."""

    @property
    def least(self) -> int:
        """Images that a batch has at least, where there are as many."""
        # Batch norms that take statistics of a batch take none of one image alone; frozen ones take none at all.
        is_frozen = isinstance(self.recipe, teacher_config.FinetunedWeights)
        return 1 if is_frozen else teacher_config.MIN_BATCH_SIZE

    def count(self) -> int:
        """How many are trained on."""
        return sample_reader.count_labelled(self.shards, "train") - len(self.held_back)

    def steps(self) -> int:
        """Batches of an epoch; what is left over, if fewer than `least`, belongs to the last full batch."""
        full_batches, rest = divmod(self.count(), self.recipe.batch_size)
        return full_batches + (rest >= self.least)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Augmented images of one epoch; tars in turn, rows of a tar shuffled.

        The last batch may have an image more than the others.
        """
        # Orders come from hashes of seed, epoch and tar: the same in every process and NumPy release. Tars are read one
        # after the other, since a shuffle over all images would hold them all, or open a tar for each image.
        pixels: list[npt.NDArray[np.uint8]] = []
        labels: list[int] = []
        batch_size = self.recipe.batch_size
        for sample in self._shuffled(epoch):
            pixels.append(render_view(sample, self.recipe.policy, epoch, self.size))
            labels.append(sample.label)
            # A batch is given out once so many more images are there that what is left at the end is never too few.
            if len(labels) == batch_size + self.least:
                yield _to_tensors(pixels[:batch_size], labels[:batch_size])
                pixels, labels = pixels[batch_size:], labels[batch_size:]
        if labels:
            yield _to_tensors(pixels, labels)

    def _shuffled(self, epoch: int) -> Iterator[sample_reader.Sample]:
        entries = self.shards.index.of_split("train")
        seed = self.recipe.seed
        for position in hashing.permutation(len(entries), "teacher tars", seed, epoch):
            rows = list(sample_reader.verified_samples(entries[position], self.shards.path(entries[position])))
            for row in hashing.permutation(len(rows), "teacher rows", seed, epoch, int(position)):
                sample = rows[row]
                if sample.label != index.UNLABELLED and sample.key not in self.held_back:
                    yield sample


def plain_batches(
    shards: index.Shards, keys: Collection[str], evaluation: view_policy.Policy, size: int, batch_size: int
) -> Iterator[Batch]:
    """The training images of these keys, under the evaluation crop.

    Args:
        shards: where they lie.
        keys: which images.
        evaluation: the crop.
        size: side of a view in pixels.
        batch_size: images of a batch.
    """
    pixels: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    for entry in shards.index.of_split("train"):
        for sample in sample_reader.verified_samples(entry, shards.path(entry)):
            if sample.key in keys:
                pixels.append(render_view(sample, evaluation, 0, size))
                labels.append(sample.label)
            if len(labels) == batch_size:
                yield _to_tensors(pixels, labels)
                pixels, labels = [], []
    if labels:
        yield _to_tensors(pixels, labels)


def render_view(
    sample: sample_reader.Sample, augmentation: view_policy.Policy, epoch: int, size: int
) -> npt.NDArray[np.uint8]:
    """The view of a sample that an epoch draws: uint8 (3, H, W)."""
    image = decode.rgb_pixels(sample.image, sample.key)
    return render.to_pixels(image, draw.view_params(augmentation, sample.key, epoch), size)


def _to_tensors(pixels: Sequence[npt.NDArray[np.uint8]], labels: Sequence[int]) -> Batch:
    return torch.from_numpy(np.stack(pixels)), torch.tensor(labels)
