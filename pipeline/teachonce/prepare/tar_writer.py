"""Write samples as WebDataset tars whose bytes depend on the samples alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import webdataset

from teachonce.core import hashing
from teachonce.shards import index


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One image on its way into a tar."""

    key: str
    """Key within the data set: no dots, since WebDataset cuts a file's name at the first one."""
    extension: str
    """Ending of its file in the tar: jpg, png or webp."""
    image: bytes
    """The encoded image, as it is written."""
    label: int
    """Position in the list of classes, or `index.UNLABELLED`."""


def write_samples(
    samples: Iterable[EncodedImage], folder: Path, *, split: str, rows_per_tar: int
) -> Iterator[index.Shard]:
    """Write samples in order into `split-000000.tar`, …, and give each tar's index entry as it is finished.

    The caller writes into a folder that becomes visible only when whole (`outputs.Output.draft`).

    Args:
        samples: in the order of rows.
        folder: of the tars.
        split: `train` or `val`, which the names of the tars start with.
        rows_per_tar: rows of each tar but the last, which may have fewer.
    """
    rows: list[EncodedImage] = []
    count = 0
    for sample in samples:
        rows.append(sample)
        if len(rows) == rows_per_tar:
            yield _tar(rows, folder / f"{split}-{count:06d}.tar", split)
            rows, count = [], count + 1
    if rows:
        yield _tar(rows, folder / f"{split}-{count:06d}.tar", split)


def _tar(rows: list[EncodedImage], path: Path, split: str) -> index.Shard:
    # No time, owner or mode of this machine: a cache knows a tar by its sha256, and equal samples must give it again.
    with (
        path.open("wb") as stream,
        webdataset.TarWriter(stream, encoder=False, mtime=0, user="root", group="root", mode=0o444) as tar,
    ):
        for row in rows:
            # No label, no .cls member: any number there would be a class to other readers of the tar.
            label = {} if row.label == index.UNLABELLED else {"cls": str(row.label).encode("ascii")}
            tar.write({"__key__": row.key, row.extension: row.image, **label})
    return index.Shard(
        url=path.name,
        nsamples=len(rows),
        split=split,
        bytes=path.stat().st_size,
        sha256=hashing.sha256_file(path),
        keys_crc32=hashing.keys_crc32(row.key for row in rows),
        unlabelled=sum(row.label == index.UNLABELLED for row in rows),
    )
