"""The samples of a tar, each proved to be the one that the index names before it is given out.

A tar is read once from end to end for its sha256, and remembered by a digest of each sample. A sample is then read at
its place and compared with that digest: what is decoded is what was verified, whatever became of the file since.
"""

import functools
import hashlib
import os
import posixpath
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from teachonce.core import errors, files, hashing
from teachonce.shards import index, sample_keys, tar_reader

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_IMAGE_BYTES = 1 << 28
"""Of an encoded image."""
_LABEL = "cls"
_MAX_LABEL_BYTES = 32
_MAX_LABEL_DIGITS = 18
_BUFFER_BYTES = 1 << 20
_NEIGHBOURS = "with the members of each sample one behind the other, an image among them: tar --sort=name"
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


@dataclass(slots=True)
class _Contents:
    """Where the samples of a tar lie, by row."""

    keys: list[str] = field(default_factory=list)
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    digests: bytearray = field(default_factory=bytearray)
    """SHA-256 of each image, one behind the other."""
    sha256: str = ""
    """Of the whole tar."""

    def digest(self, row: int) -> bytes:
        return bytes(self.digests[32 * row : 32 * row + 32])


class Tar:
    """The samples of an open tar."""

    def __init__(self, contents: _Contents, stream: BinaryIO, path: Path, keys: Sequence[str] | None) -> None:
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
            raise errors.DataError(f"{self._path}: {what}. {index.RESTORE}")
        return Sample(row=row, key=self._keys[row], image=image, label=contents.labels[row])


@contextmanager
def opened(shard: index.Shard, path: Path, keys: Sequence[str] | None = None) -> Iterator[Tar]:
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
        yield Tar(contents, stream, path, keys)


def verified(shard: index.Shard, path: Path) -> Iterator[Sample]:
    """Samples of a tar in row order; DataError as `opened` and `Tar.sample`."""
    with opened(shard, path) as samples:
        yield from samples


def labelled(shards: index.Shards, split: str) -> int:
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


def measured(path: Path, *, url: str, split: str, visit: Callable[[Sample], None]) -> index.Shard:
    """Index entry of a tar that was written elsewhere; `visit` sees each sample, in order.

    Raises:
        DataError: the tar is missing, not whole, or holds no sample; a sample lacks its image or has a label that is
            none.
    """
    with _open(path) as stream:
        contents, end_mark = _scan(stream, path, is_indexed=False)
        size = stream.seek(0, 2)
    if end_mark < tar_reader.END_BYTES:
        end = size - end_mark
        raise errors.DataError(f"{path}: is cut after byte {end:,}: the end mark of a tar is missing. {index.RESTORE}")
    if not contents.keys:
        raise errors.DataError(f"{path}: holds no sample. Remove it, or correct the globs")
    shard = index.Shard(
        url=url,
        nsamples=len(contents.keys),
        split=split,
        bytes=size,
        sha256=contents.sha256,
        keys_crc32=hashing.keys_crc32(contents.keys),
        unlabelled=contents.labels.count(index.UNLABELLED),
    )
    for sample in verified(shard, path):
        visit(sample)
    return shard


@functools.lru_cache(maxsize=_REMEMBERED)
def _verified(shard: index.Shard, path: Path) -> _Contents:
    with _open(path) as stream:
        _compare(path, "bytes", shard.bytes, os.fstat(stream.fileno()).st_size)
        contents, _ = _scan(stream, path, is_indexed=True)
    if not shard.unlabelled and index.UNLABELLED in contents.labels:
        key = contents.keys[contents.labels.index(index.UNLABELLED)]
        raise errors.DataError(
            f"{path}: sample {key!r} must have a label (.cls), as indexed. Got none. {index.RESTORE}"
        )
    _compare(path, "samples", shard.nsamples, len(contents.keys))
    _compare(path, "the crc32 of its keys", shard.keys_crc32, hashing.keys_crc32(contents.keys))
    _compare(path, "sha256", shard.sha256, contents.sha256)
    _require_labels(shard, path, contents)
    return contents


def _require_labels(shard: index.Shard, path: Path, contents: _Contents) -> None:
    """No digest covers the index: what it says of the labels of a whole tar may still be wrong."""
    unlabelled = contents.labels.count(index.UNLABELLED)
    _compare(path, "samples without a label", shard.unlabelled, unlabelled)
    greatest = max(contents.labels)
    if shard.classes is not None and greatest >= shard.classes:
        key = f"label of {contents.keys[contents.labels.index(greatest)]!r}"
        condition = f"below {shard.classes}, the classes"
        raise errors.DataError(errors.refusal(path, key, condition, greatest, index.RESTORE))


def _open(path: Path, buffering: int = _BUFFER_BYTES) -> BinaryIO:
    try:
        return files.open_regular(path, buffering)
    except OSError as error:
        cure = f"{index.RESTORE}; where the tars lie elsewhere, set {index.BASE} to their folder"
        raise errors.DataError(f"{path}: cannot be read ({error.strerror}). {cure}") from error


def _scan(stream: BinaryIO, path: Path, *, is_indexed: bool) -> tuple[_Contents, int]:
    """A tar from end to end: what it holds, and the bytes of zeros that it ends with."""
    reader = tar_reader.Reader(stream)
    scan = _Scan(path, is_indexed=is_indexed)
    try:
        for member in tar_reader.members(reader):
            scan.add(member, reader)
        scan.end_sample()
    except tar_reader.CompressedError as error:
        cure = f"Unpack it: {error} -dc FILE > FILE.tar; and correct the globs"
        raise errors.DataError(f"{path}: is compressed with {error}. {cure}") from error
    except tar_reader.TarError as error:
        raise errors.DataError(f"{path}: is not a whole tar ({error}). {index.RESTORE}") from error
    scan.contents.sha256 = reader.sha256()
    return scan.contents, reader.end_mark


class _Scan:
    """Members into samples, by WebDataset's rule: neighbours whose names are equal up to the first dot are one."""

    def __init__(self, path: Path, *, is_indexed: bool) -> None:
        """Begin a tar.

        Args:
            path: names it in a refusal.
            is_indexed: whether an index vouches for it, so that it was sound once and can be restored.
        """
        self.contents = _Contents()
        self._path = path
        self._is_indexed = is_indexed
        self._key = ""
        self._images: dict[str, tuple[tar_reader.Member, bytes]] = {}
        self._label = index.UNLABELLED
        self._extensions: set[str] = set()

    def add(self, member: tar_reader.Member, reader: tar_reader.Reader) -> None:
        """Take note of a member, reading its data where they are of use."""
        folder, slash, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        kind = extension.rpartition(".")[2].lower()
        if not (stem and dot and kind in (*IMAGE_EXTENSIONS, _LABEL) and (member.is_file or member.is_link)):
            return
        self._require_plain(member)
        self._begin(folder + slash + stem)
        self._take(member, extension.lower(), reader)

    def end_sample(self) -> None:
        """Take note that a sample is whole."""
        if not self._extensions:
            return
        if not self._images:
            self._refuse_without_image()
        if len(self._images) > 1:
            names = " and ".join(member.name for member, _ in self._images.values())
            self._refuse(f"sample {self._key!r} has {len(self._images)} images, {names}", "with one image a sample")
        ((member, digest),) = self._images.values()
        contents = self.contents
        contents.keys.append(self._key)
        contents.labels.append(self._label)
        contents.offsets.append(member.offset)
        contents.sizes.append(member.size)
        contents.digests += digest

    def _begin(self, key: str) -> None:
        if self._extensions and key == self._key:
            return
        self.end_sample()
        if len(key.encode()) > index.MAX_KEY_BYTES:
            limit, row = f"at most {index.MAX_KEY_BYTES} bytes", len(self.contents.keys)
            shown = f"{key[:40]}…"
            raise errors.DataError(errors.refusal(self._path, f"key of row {row}", limit, shown, "Rename the sample"))
        self._key, self._images, self._label, self._extensions = key, {}, index.UNLABELLED, set()

    def _take(self, member: tar_reader.Member, extension: str, reader: tar_reader.Reader) -> None:
        if extension in self._extensions:
            self._refuse(f"{member.name!r} is there twice", "without the second one")
        self._extensions.add(extension)
        if extension in IMAGE_EXTENSIONS:
            self._require_size(member, MAX_IMAGE_BYTES)
            self._images[extension] = member, hashlib.sha256(reader.read(member.size)).digest()
        elif extension == _LABEL:
            self._require_size(member, _MAX_LABEL_BYTES)
            self._label = self._number(reader.read(member.size).strip())

    def _refuse_without_image(self) -> None:
        """Say why the members that lie here are no sample."""
        endings = sorted(self._extensions)
        what, cure = f"sample {self._key!r} has no image; it has {endings}", _NEIGHBOURS
        alike = [key for key in self.contents.keys if posixpath.normpath(key) == posixpath.normpath(self._key)]
        if self._key in alike:
            what = f"the members of sample {self._key!r} lie apart; {endings} come after other samples"
        elif alike:
            what, cure = f"one sample has two names, {alike[0]!r} and {self._key!r}; {what}", "with names of one form"
        elif any(ending.rpartition(".")[2] in IMAGE_EXTENSIONS for ending in endings):
            cure = "so that the name of each image has one dot: what follows the first one is its ending"
        self._refuse(what, cure)

    def _refuse(self, what: str, how: str) -> NoReturn:
        cure = index.RESTORE if self._is_indexed else f"Write the tar again {how}"
        raise errors.DataError(f"{self._path}: {what}. {cure}")

    def _number(self, text: bytes) -> int:
        # A longer number than any label would be slow to read, or no int64.
        if not text.isdigit() or len(text) > _MAX_LABEL_DIGITS:
            what = f"label of sample {self._key!r} must be an ASCII integer"
            raise errors.DataError(f"{self._path}: {what}. Got {text!r}. Correct the tar")
        return int(text)

    def _require_plain(self, member: tar_reader.Member) -> None:
        """Refuse a member that belongs to a sample but has no data, or no name, of its own."""
        if member.is_link:
            cure = "Write the tar again with tar --hard-dereference --dereference"
            raise errors.DataError(f"{self._path}: {member.name!r} must be a file. Got a link to one. {cure}")
        if member.is_sparse:
            raise tar_reader.TarError(f"{member.name!r} is a sparse file")
        if fault := sample_keys.fault(member.name):
            name = sample_keys.shown(member.name)
            raise errors.DataError(f"{self._path}: the name {name!r} {fault}. Rename it, and write the tar again")

    def _require_size(self, member: tar_reader.Member, most: int) -> None:
        if member.size > most:
            limit, cure = f"at most {most:,} bytes", "Correct the tar"
            raise errors.DataError(errors.refusal(self._path, repr(member.name), limit, f"{member.size:,}", cure))


def _compare(path: Path, what: str, recorded: object, present: object) -> None:
    if recorded != present:
        raise errors.DataError(f"{path}: {what} must be as indexed, {recorded}. Got {present}. {index.RESTORE}")
