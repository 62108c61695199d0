"""Stream the samples of a tar in row order, and refuse a tar that is not the one the index names."""

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from webdataset import tariterators

from pipeline.base import errors, hashing
from pipeline.shards import index

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_LABEL = "cls"
_BUFFER_BYTES = 1 << 20
_END_BYTES = 1024  # a tar ends with two blocks of zeros
_RESTORE = "Restore it: dvc checkout, or dvc pull"


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


class _HashingStream:
    """A file that digests what is read through it, so that a tar is verified while it streams by.

    Read forwards only. No more is asked of the file than it holds, whatever size a header claims.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hasher = hashlib.sha256()
        self._end = stream.seek(0, 2)
        self._at = stream.seek(0)

    def read(self, size: int) -> bytes:
        data = self._stream.read(max(0, min(size, self._end - self._at)))
        self._hasher.update(data)
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, place: int) -> int:
        if place < self._at:
            raise tarfile.ReadError("a member of negative size")
        while self._at < min(place, self._end):
            self.read(min(_BUFFER_BYTES, place - self._at))
        return self._at

    def finish(self) -> str:
        """Read what the tar reader left unread and give the digest of the whole file."""
        while self.read(_BUFFER_BYTES):
            pass
        return self._hasher.hexdigest()


def samples(path: Path) -> Iterator[tuple[Sample, str]]:
    """Samples of any WebDataset tar, each with its image's extension; members of other kinds are passed over.

    Raises:
        DataError: the tar is missing, cut inside a member, or a sample lacks its image or has a label that is none.
    """
    with _open(path) as stream:
        yield from _parse(_HashingStream(stream), path)


def measured(path: Path, *, url: str, split: str, visit: Callable[[Sample], None]) -> index.Shard:
    """Index entry of a tar that was written elsewhere; `visit` sees each sample, in order.

    Raises:
        DataError: as `samples`, or the tar holds no sample, or does not end as a tar does: it was cut between two
            members, or a damaged header hides those behind it.
    """
    keys: list[str] = []
    unlabelled = 0
    with _open(path) as raw:
        stream = _HashingStream(raw)
        for sample, _ in _parse(stream, path):
            keys.append(sample.key)
            unlabelled += sample.label == index.UNLABELLED
            visit(sample)
        sha256 = stream.finish()
    _check_end(path)
    if not keys:
        raise errors.DataError(f"{path}: holds no sample. Remove it, or correct the globs")
    return index.Shard(
        url=url,
        nsamples=len(keys),
        split=split,
        bytes=_size(path),
        sha256=sha256,
        keys_crc32=hashing.keys_crc32(keys),
        unlabelled=unlabelled,
    )


def verified(shard: index.Shard, path: Path) -> Iterator[Sample]:
    """Samples of a tar that the index knows.

    The last sample is held back until count, keys and sha256 of the whole tar have been compared, so that a consumer
    which saw every sample saw a verified tar.

    Raises:
        DataError: as `samples`, or the tar differs from its index entry.
    """
    _compare(path, "bytes", shard.bytes, _size(path))
    keys: list[str] = []
    last: Sample | None = None
    with _open(path) as raw:
        stream = _HashingStream(raw)
        for sample, _ in _parse(stream, path):
            keys.append(sample.key)
            if sample.label == index.UNLABELLED and not shard.unlabelled:
                raise errors.DataError(
                    f"{path}: sample {sample.key!r} must have a label (.cls), as indexed. Got none. {_RESTORE}"
                )
            if last is not None:
                yield last
            last = sample
        sha256 = stream.finish()
    _compare(path, "samples", shard.nsamples, len(keys))
    _compare(path, "the crc32 of its keys", shard.keys_crc32, hashing.keys_crc32(keys))
    _compare(path, "sha256", shard.sha256, sha256)
    if last is not None:
        yield last


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", _BUFFER_BYTES)
    except OSError as error:
        cure = f"{_RESTORE}; where the tars lie elsewhere, set {index.BASE} to their folder"
        raise errors.DataError(f"{path}: cannot be read ({error.strerror}). {cure}") from error


def _size(path: Path) -> int:
    with _open(path) as stream:
        return stream.seek(0, 2)


def _check_end(path: Path) -> None:
    try:
        with tarfile.open(path, "r:") as tar:
            for _ in tar:
                tar.members = []  # type: ignore[attr-defined]  # TarFile would remember every member
            end = tar.offset
    except tarfile.TarError as error:
        raise errors.DataError(f"{path}: is not an uncompressed tar ({error}). Decompress it") from error
    with _open(path) as stream:
        stream.seek(end)
        found = 0
        while block := stream.read(_BUFFER_BYTES):
            if block.strip(b"\0"):
                raise errors.DataError(f"{path}: has a damaged header at byte {end:,}. {_RESTORE}")
            found += len(block)
    if found < _END_BYTES:
        raise errors.DataError(f"{path}: is cut after byte {end:,}: the end mark of a tar is missing. {_RESTORE}")


def _parse(stream: _HashingStream, path: Path) -> Iterator[tuple[Sample, str]]:
    row = 0
    try:
        for group in tariterators.group_by_keys(_members(stream, path)):
            yield _sample(group, row, path)
            row += 1
    except (tarfile.TarError, EOFError, ValueError) as error:
        reason = str(error.args[0]) if error.args else type(error).__name__
        raise errors.DataError(f"{path}: is not a whole tar after {row} samples ({reason}). {_RESTORE}") from error


def _members(stream: _HashingStream, path: Path) -> Iterator[dict[str, object]]:
    """Members that belong to samples, as WebDataset's own iterator gives them.

    That one unpacks compressed tars and fills the holes of sparse files, whatever they claim to become; and takes twice
    the time.
    """
    # Not `with`: what is left of the file is for whoever gave the stream.
    tar = tarfile.TarFile(fileobj=stream)  # type: ignore[arg-type]  # it reads, tells, and seeks forwards
    while member := tar.next():
        tar.members = []  # type: ignore[attr-defined]  # TarFile would remember every member
        if not member.isreg() or not _wanted(member.name):
            continue
        if member.issparse():
            raise tarfile.ReadError(f"{member.name!r} is a sparse file")
        data = stream.read(member.size)
        if len(data) != member.size:
            raise tarfile.ReadError("unexpected end of data")
        yield {"fname": member.name, "data": data, "__url__": str(path)}


def _wanted(name: str) -> bool:
    return name.rpartition(".")[2].lower() in (*IMAGE_EXTENSIONS, _LABEL)


def _sample(group: dict[str, bytes], row: int, path: Path) -> tuple[Sample, str]:
    key = str(group["__key__"])
    if len(key.encode(errors="surrogateescape")) > index.MAX_KEY_BYTES:
        limit = f"at most {index.MAX_KEY_BYTES} bytes"
        raise errors.DataError(errors.refusal(path, f"key of row {row}", limit, f"{key[:40]}…", "Rename the sample"))
    extension = next((name for name in IMAGE_EXTENSIONS if name in group), None)
    if extension is None:
        raise errors.DataError(
            f"{path}: sample {key!r} has no image; it has {sorted(set(group) - {'__key__', '__url__'})}. {_RESTORE}"
        )
    image = group[extension]
    if _LABEL not in group:
        return Sample(row=row, key=key, image=image, label=index.UNLABELLED), extension
    text = group[_LABEL].strip()
    if not text.isdigit():
        raise errors.DataError(
            f"{path}: label of sample {key!r} must be an ASCII integer. Got {text!r}. Correct the tar"
        )
    return Sample(row=row, key=key, image=image, label=int(text)), extension


def _compare(path: Path, what: str, recorded: object, found: object) -> None:
    if recorded != found:
        raise errors.DataError(f"{path}: {what} must be as indexed, {recorded}. Got {found}. {_RESTORE}")
