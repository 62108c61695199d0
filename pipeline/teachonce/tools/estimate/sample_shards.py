"""Shards to measure with: some of the training images, each as often as it takes, under keys of their own."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from teachonce.core import errors
from teachonce.prepare import tar_writer
from teachonce.shards import decode, index, sample_reader


def write_copies(folder: Path, real: index.Shards, *, tars: int, rows: int) -> index.Shards:
    """Write tars of so many rows.

    Args:
        folder: where to; must not exist.
        real: whose images; where they are too few, they come again.
        tars: how many.
        rows: of each.

    Raises:
        DataError: there is no training image, or a tar cannot be read.
    """
    folder.mkdir(parents=True)
    found = list(itertools.islice(_images(real), tars * rows))
    if not found:
        raise errors.DataError(real.base, "holds no training image", "Make the shards: dvc repro prepare")
    samples = (
        tar_writer.EncodedImage(
            f"{number:08d}", decode.detect_extension(sample.image) or "jpg", sample.image, sample.label
        )
        for number, sample in zip(range(tars * rows), itertools.cycle(found), strict=False)
    )
    shardlist = list(tar_writer.write_samples(samples, folder, split="train", rows_per_tar=rows))
    index.write(folder, base=folder, classes=real.index.classes, rows_per_tar=rows, shardlist=shardlist)
    return index.read(folder)


def _images(real: index.Shards) -> Iterator[sample_reader.Sample]:
    for entry in real.index.of_split("train"):
        yield from sample_reader.verified_samples(entry, real.path(entry))
