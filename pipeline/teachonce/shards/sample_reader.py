"""The samples of a tar, each proved to be the one that the index names before it is given out.

A tar is read once from end to end for its sha256, and remembered by a digest of each sample. A sample is then read at
its place and compared with that digest: what is decoded is what was verified, whatever became of the file since.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from teachonce.core import errors, files, hashing
from teachonce.shards import index, tar_contents, tar_reader

_BUFFER_BYTES = 1 << 20
_MAX_TABLES = 64  # tars of a process: a bound, so that memory does not grow with the number of tars


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample as it lies in a tar."""

    row: int
    """Position in the tar, from 0."""
    key: str
    """Name of the sample within the data set."""
    image: bytes
    """The encoded image, as it lies in the tar."""
    label: int
    """Position in the index's list of classes, or `index.UNLABELLED`."""


class OpenTar:
    """The samples of an open tar, read one by one at their places and compared with their digests."""

    def __init__(
        self, table: tar_contents.SampleTable, stream: BinaryIO, path: Path, keys: Sequence[str] | None
    ) -> None:
        self._table = table
        self._stream = stream
        self._path = path
        self._keys = table.keys if keys is None else keys

    def __iter__(self) -> Iterator[Sample]:
        """All samples in row order; DataError as `sample`."""
        return map(self.sample, range(len(self._table.keys)))

    def sample(self, row: int) -> Sample:
        """The sample of a row.

        Raises:
            DataError: the file has changed since its sha256 was compared.
        """
        table = self._table
        # By place: no reader of an open tar moves the position of another.
        image = os.pread(self._stream.fileno(), table.sizes[row], table.offsets[row])
        # Of the bytes in hand, which are decoded next: the file may have been replaced or written to since it was
        # hashed.
        if hashlib.sha256(image).digest() != table.digest(row):
            problem = f"has changed since its sha256 was compared (sample {table.keys[row]!r})"
            raise errors.DataError(self._path, problem, index.RESTORE)
        return Sample(row=row, key=self._keys[row], image=image, label=table.labels[row])


@contextmanager
def open_tar(shard: index.Shard, path: Path, keys: Sequence[str] | None = None) -> Iterator[OpenTar]:
    """A tar of an index, compared with its entry.

    Args:
        shard: what the index says of it.
        path: where it lies.
        keys: by row, to be given out instead of the samples' own.

    Raises:
        DataError: it is missing, no whole tar, or differs from its index entry in size, count or keys of samples,
            sha256, or count of samples without a label; or a label is not one of the index's classes.
    """
    table = _verified_table(shard, path)
    # Without a buffer: samples are read at their places, in any order, and a buffer would read their neighbours.
    with _open(path, buffering=0) as stream:
        yield OpenTar(table, stream, path, keys)


def verified_samples(shard: index.Shard, path: Path) -> Iterator[Sample]:
    """Samples of a tar in row order; DataError as `open_tar` and `OpenTar.sample`."""
    with open_tar(shard, path) as samples:
        yield from samples


def count_labelled(shards: index.Shards, split: str) -> int:
    """Samples of a split that have a label.

    Where the index says that there is none, its tars are read before it is believed: what hangs on that is a refusal,
    or a number left out, and no tar would be opened any more to show that it is not so.

    Raises:
        DataError: a tar of such a split cannot be read, or is not as indexed.
    """
    count = shards.index.labelled(split)
    for shard in () if count else shards.index.of_split(split):
        _verified_table(shard, shards.path(shard))
    return count


def index_tar(path: Path, *, url: str, split: str, visit: Callable[[Sample], None]) -> index.Shard:
    """Index entry of a tar that was written elsewhere: it is adopted, not rewritten.

    Args:
        path: the tar.
        url: its name in the index.
        split: that it will belong to.
        visit: called with each sample in row order, once the whole tar was read.

    Raises:
        DataError: the tar is missing, not whole, or holds no sample; a sample lacks its image or has a label that is
            none.
    """
    with _open(path) as stream:
        table, end_mark = tar_contents.scan(stream, path, is_indexed=False)
        size = stream.seek(0, 2)
    # No index tells its length yet: only the end mark shows that it was not cut between two members.
    if end_mark < tar_reader.END_BYTES:
        end = size - end_mark
        raise errors.DataError(path, f"is cut after byte {end:,}: the end mark of a tar is missing", index.RESTORE)
    if not table.keys:
        raise errors.DataError(path, "holds no sample", "Remove it, or correct the globs")
    shard = index.Shard(
        url=url,
        nsamples=len(table.keys),
        split=split,
        bytes=size,
        sha256=table.sha256,
        keys_crc32=hashing.keys_crc32(table.keys),
        unlabelled=table.labels.count(index.UNLABELLED),
    )
    for sample in verified_samples(shard, path):
        visit(sample)
    return shard


@functools.lru_cache(maxsize=_MAX_TABLES)
def _verified_table(shard: index.Shard, path: Path) -> tar_contents.SampleTable:
    with _open(path) as stream:
        # Cheapest first: a tar that was cut, or is another, is known by its size before it is read.
        _require_equal(path, "bytes", shard.bytes, os.fstat(stream.fileno()).st_size)
        table, _ = tar_contents.scan(stream, path, is_indexed=True)
    if not shard.unlabelled and index.UNLABELLED in table.labels:
        key = table.keys[table.labels.index(index.UNLABELLED)]
        raise errors.DataError(path, f"sample {key!r} must have a label (.cls), as indexed. Got none", index.RESTORE)
    # Before the sha256, though that alone would do: these say what is wrong, and not only that something is.
    _require_equal(path, "samples", shard.nsamples, len(table.keys))
    _require_equal(path, "the crc32 of its keys", shard.keys_crc32, hashing.keys_crc32(table.keys))
    _require_equal(path, "sha256", shard.sha256, table.sha256)
    _require_labels(shard, path, table)
    return table


def _require_labels(shard: index.Shard, path: Path, table: tar_contents.SampleTable) -> None:
    """No digest covers the index: what it says of the labels of a whole tar may still be wrong."""
    unlabelled = table.labels.count(index.UNLABELLED)
    _require_equal(path, "samples without a label", shard.unlabelled, unlabelled)
    greatest = max(table.labels)
    if shard.classes is not None and greatest >= shard.classes:
        key = f"label of {table.keys[table.labels.index(greatest)]!r}"
        condition = f"below {shard.classes}, the classes"
        raise errors.DataError.for_value(path, key, condition, greatest, index.RESTORE)


def _open(path: Path, buffering: int = _BUFFER_BYTES) -> BinaryIO:
    try:
        return files.open_regular(path, buffering)
    except OSError as error:
        cure = f"{index.RESTORE}; where the tars lie elsewhere, set {index.BASE} to their folder"
        raise errors.DataError(path, f"cannot be read ({error.strerror})", cure) from error


def _require_equal(path: Path, key: str, recorded: object, value: object) -> None:
    if recorded != value:
        raise errors.DataError(path, f"{key} must be as indexed, {recorded}. Got {value}", index.RESTORE)
