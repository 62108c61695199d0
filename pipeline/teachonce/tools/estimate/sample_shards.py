"""Shards to measure with: some of the training images, each as often as it takes, under keys of their own."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from teachonce.core import errors
from teachonce.prepare import tar_writer
from teachonce.shards import decode, index, sample_reader


def write_copies(folder: Path, source: index.Shards, *, tars: int, rows: int) -> index.Shards:
    """Write tars of real images, and their index.

    Args:
        folder: where the tars go; must not exist.
        source: shards whose training images are taken, from the first on; where they are too few, they come again.
        tars: count of tars.
        rows: images of each tar.

    Raises:
        DataError: there is no training image, or a tar cannot be read.
    """
    folder.mkdir(parents=True)
    images = list(itertools.islice(_images(source), tars * rows))
    if not images:
        raise errors.DataError(source.base, "holds no training image", "Make the shards: dvc repro prepare")
    # The very bytes of real images, which cost as much to decode as in a run; with new keys, since those of a tar are
    # all different and an image may come again.
    samples = (
        tar_writer.EncodedImage(
            f"{number:08d}", decode.detect_extension(sample.image) or "jpg", sample.image, sample.label
        )
        for number, sample in zip(range(tars * rows), itertools.cycle(images), strict=False)
    )
    shardlist = list(tar_writer.write_samples(samples, folder, split="train", rows_per_tar=rows))
    index.write(folder, base=folder, classes=source.index.classes, rows_per_tar=rows, shardlist=shardlist)
    return index.read(folder)


def _images(source: index.Shards) -> Iterator[sample_reader.Sample]:
    for entry in source.index.of_split("train"):
        yield from sample_reader.verified_samples(entry, source.path(entry))
