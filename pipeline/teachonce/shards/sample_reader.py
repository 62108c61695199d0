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
_REMEMBERED = 64  # tars of a process: a bound, so that memory does not grow with the number of tars


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample as it lies in a tar."""

    row: int
    """Position in the tar."""
    key: str
    """Name within the data set."""
    image: bytes
    """The encoded image."""
    label: int
    """Position in the index's list of classes, or `index.UNLABELLED`."""


class OpenTar:
    """The samples of an open tar."""

    def __init__(
        self, contents: tar_contents.SampleTable, stream: BinaryIO, path: Path, keys: Sequence[str] | None
    ) -> None:
        self._contents = contents
        self._stream = stream
        self._path = path
        self._keys = contents.keys if keys is None else keys

    def __iter__(self) -> Iterator[Sample]:
        """All samples in row order; DataError as `sample`."""
        return map(self.sample, range(len(self._contents.keys)))

    def sample(self, row: int) -> Sample:
        """The sample of a row.

        Raises:
            DataError: the file has changed since its sha256 was compared.
        """
        contents = self._contents
        image = os.pread(self._stream.fileno(), contents.sizes[row], contents.offsets[row])
        if hashlib.sha256(image).digest() != contents.digest(row):
            what = f"has changed since its sha256 was compared (sample {contents.keys[row]!r})"
            raise errors.DataError(self._path, what, index.RESTORE)
        return Sample(row=row, key=self._keys[row], image=image, label=contents.labels[row])


@contextmanager
def open_tar(shard: index.Shard, path: Path, keys: Sequence[str] | None = None) -> Iterator[OpenTar]:
    """A tar of an index, compared with its entry.

    Args:
        shard: what the index says of it.
        path: where it lies.
        keys: by row, stand for the samples' own.

    Raises:
        DataError: it is missing, no whole tar, or differs from its index entry in size, count or keys of samples,
            sha256, or count of samples without a label; or a label is not one of the index's classes.
    """
    contents = _verified(shard, path)
    with _open(path, buffering=0) as stream:
        yield OpenTar(contents, stream, path, keys)


def verified_samples(shard: index.Shard, path: Path) -> Iterator[Sample]:
    """Samples of a tar in row order; DataError as `open_tar` and `Tar.sample`."""
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
        _verified(shard, shards.path(shard))
    return count


def index_tar(path: Path, *, url: str, split: str, visit: Callable[[Sample], None]) -> index.Shard:
    """Index entry of a tar that was written elsewhere; `visit` sees each sample, in order.

    Raises:
        DataError: the tar is missing, not whole, or holds no sample; a sample lacks its image or has a label that is
            none.
    """
    with _open(path) as stream:
        contents, end_mark = tar_contents.scan(stream, path, is_indexed=False)
        size = stream.seek(0, 2)
    if end_mark < tar_reader.END_BYTES:
        end = size - end_mark
        raise errors.DataError(path, f"is cut after byte {end:,}: the end mark of a tar is missing", index.RESTORE)
    if not contents.keys:
        raise errors.DataError(path, "holds no sample", "Remove it, or correct the globs")
    shard = index.Shard(
        url=url,
        nsamples=len(contents.keys),
        split=split,
        bytes=size,
        sha256=contents.sha256,
        keys_crc32=hashing.keys_crc32(contents.keys),
        unlabelled=contents.labels.count(index.UNLABELLED),
    )
    for sample in verified_samples(shard, path):
        visit(sample)
    return shard


@functools.lru_cache(maxsize=_REMEMBERED)
def _verified(shard: index.Shard, path: Path) -> tar_contents.SampleTable:
    with _open(path) as stream:
        _compare(path, "bytes", shard.bytes, os.fstat(stream.fileno()).st_size)
        contents, _ = tar_contents.scan(stream, path, is_indexed=True)
    if not shard.unlabelled and index.UNLABELLED in contents.labels:
        key = contents.keys[contents.labels.index(index.UNLABELLED)]
        raise errors.DataError(path, f"sample {key!r} must have a label (.cls), as indexed. Got none", index.RESTORE)
    _compare(path, "samples", shard.nsamples, len(contents.keys))
    _compare(path, "the crc32 of its keys", shard.keys_crc32, hashing.keys_crc32(contents.keys))
    _compare(path, "sha256", shard.sha256, contents.sha256)
    _require_labels(shard, path, contents)
    return contents


def _require_labels(shard: index.Shard, path: Path, contents: tar_contents.SampleTable) -> None:
    """No digest covers the index: what it says of the labels of a whole tar may still be wrong."""
    unlabelled = contents.labels.count(index.UNLABELLED)
    _compare(path, "samples without a label", shard.unlabelled, unlabelled)
    greatest = max(contents.labels)
    if shard.classes is not None and greatest >= shard.classes:
        key = f"label of {contents.keys[contents.labels.index(greatest)]!r}"
        condition = f"below {shard.classes}, the classes"
        raise errors.DataError.for_value(path, key, condition, greatest, index.RESTORE)


def _open(path: Path, buffering: int = _BUFFER_BYTES) -> BinaryIO:
    try:
        return files.open_regular(path, buffering)
    except OSError as error:
        cure = f"{index.RESTORE}; where the tars lie elsewhere, set {index.BASE} to their folder"
        raise errors.DataError(path, f"cannot be read ({error.strerror})", cure) from error


def _compare(path: Path, what: str, recorded: object, present: object) -> None:
    if recorded != present:
        raise errors.DataError(path, f"{what} must be as indexed, {recorded}. Got {present}", index.RESTORE)
