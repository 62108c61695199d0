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
    """Name within the data set: no dots, since WebDataset cuts keys at the first one."""
    extension: str
    """jpg, png or webp."""
    image: bytes
    """The encoded image."""
    label: int
    """Position in the list of classes, or `index.UNLABELLED`."""


def write_samples(
    samples: Iterable[EncodedImage], folder: Path, *, split: str, rows_per_tar: int
) -> Iterator[index.Shard]:
    """Write samples in order into `split-000000.tar`, …, and give each tar's index entry as it is finished.

    The caller writes into a folder that becomes visible only when whole (`files.new_folder`).
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
    with (
        path.open("wb") as stream,
        webdataset.TarWriter(stream, encoder=False, mtime=0, user="root", group="root", mode=0o444) as tar,
    ):
        for row in rows:
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
