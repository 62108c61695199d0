"""Where a training stands: its newest state and the one before, each in a file that proves that it is whole.

A file is MAGIC, the sha256 of its run's name (that of its folder, which hashes all that the run is of), the sha256 of
what follows, and what follows: the state as torch saves it. What cannot prove itself is named and never used.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Generic, TypeVar, cast

import torch

from teachonce.core import files, tensor_files

NEWEST = "checkpoint.pt"
BEFORE = "checkpoint.before.pt"
NAMES = (NEWEST, BEFORE)
"""The newest first."""
MAGIC = b"teachonce checkpoint 1\n"

_DIGEST = 32  # bytes of a sha256

_LOG = logging.getLogger(__name__)

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class ReadResult(Generic[State]):
    """What a folder of saved states gave."""

    state: State | None = None
    """The newest that is sound; none where a run begins."""
    sha256: str = ""
    """Of that state's bytes."""
    damaged: tuple[tuple[Path, str], ...] = ()
    """Files that were passed over, and in a line why."""


class _DamageError(Exception):
    """Why a file is no saved state of this run."""


class _HashingWriter:
    """Passes bytes on to a file, and hashes them; torch.save needs no copy of the state then."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hasher = hashlib.sha256()
        self._error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Hold back what the system refuses: torch would tell it as an error of its own."""
        try:
            if self._error is None:
                self._stream.write(data)
        except OSError as error:
            self._error = error
        self._hasher.update(data)
        return len(data)

    def flush(self) -> None:
        """The file does so at its end."""

    def digest(self) -> bytes:
        """SHA-256 of all that was written.

        Raises:
            OSError: what the system refused meanwhile.
        """
        if self._error:
            raise self._error
        return self._hasher.digest()


def write(folder: Path, content: Mapping[str, object]) -> None:
    """Write the state whole, step the newest aside, rename: killed at any moment, a sound one is left.

    Raises:
        DiskError: there is no room for it; what was saved before stays.
    """
    newest = folder / NEWEST
    with files.new_file(newest) as stream:
        # The digest stands before what it is of, and is written last: a file that was cut short cannot prove itself.
        head = MAGIC + _run_digest(folder)
        stream.write(head + bytes(_DIGEST))
        writer = _HashingWriter(stream)
        torch.save(dict(content), cast("IO[bytes]", writer))
        digest = writer.digest()
        stream.seek(len(head))
        stream.write(digest)
        if newest.exists():
            # The new file is on the disk before the newest steps aside. In any other order, a machine that loses power
            # could keep neither: one renamed away, the other never written.
            stream.flush()
            os.fsync(stream.fileno())
            _step_aside(newest, folder / BEFORE)


def read_newest(
    folder: Path,
    build: Callable[..., State],
    find_misfit: Callable[[State], str | None],
    most_bytes: int,
) -> ReadResult[State]:
    """The newest sound state; nothing is changed, so that all ranks may read.

    Args:
        folder: the run's.
        build: makes a state of what was written, given as keyword arguments.
        find_misfit: what keeps a state from being one of this run's, in a few words; None where nothing does.
        most_bytes: how many bytes a file may have.
    """
    damaged = []
    for path in (folder / name for name in NAMES):
        try:
            content = _read(path, build, most_bytes)
        except _DamageError as error:
            damaged.append((path, str(error)))
            continue
        if content and (reason := find_misfit(content[0])):
            damaged.append((path, reason))
        elif content:
            return ReadResult(*content, tuple(damaged))
    return ReadResult(damaged=tuple(damaged))


def remove_damaged(damaged: Iterable[tuple[Path, str]], consequence: str) -> None:
    """Name what is damaged, and remove it: it must not be stepped aside onto a sound one."""
    for path, reason in damaged:
        _LOG.warning("%s: %s. It is removed. %s", path, reason, consequence)
        files.remove(path)


def _step_aside(newest: Path, before: Path) -> None:
    if before.is_dir():
        # Nobody looked at it, as long as the newest was sound; no file is renamed onto a folder.
        files.remove(before)
    newest.replace(before)


def _run_digest(folder: Path) -> bytes:
    return hashlib.sha256(folder.name.encode()).digest()


def _read(path: Path, build: Callable[..., State], most_bytes: int) -> tuple[State, str] | None:
    """The state in a file, decoded from the very bytes that were hashed, and their sha256; None where there is none.

    Raises:
        _DamageError: it is not what was written.
    """
    try:
        with files.open_regular(path) as stream:
            size = stream.seek(0, os.SEEK_END)
            # Whatever lies there may be of any size, and is hashed in memory: bounded before it is read.
            if size > most_bytes:
                raise _DamageError(f"must have at most {most_bytes:,} bytes. Got {size:,}")
            stream.seek(0)
            magic, run, recorded = stream.read(len(MAGIC)), stream.read(_DIGEST), stream.read(_DIGEST).hex()
            payload = stream.read(size)
    except FileNotFoundError:
        if path.is_symlink():
            raise _DamageError("must be a file. Got a link to none") from None
        return None
    except OSError as error:
        raise _DamageError(f"must be a file that can be read. Got: {error.strerror}") from error
    if magic != MAGIC:
        raise _DamageError(f"must begin with {MAGIC!r}. Got {magic!r}")
    # Another run's state is sound by its own digest: copied here, it would be gone on from without a word.
    if run != _run_digest(path.parent):
        raise _DamageError(f"must be of run {path.parent.name}. Got another's")
    if (sha256 := hashlib.sha256(payload).hexdigest()) != recorded:
        raise _DamageError(f"sha256 must be that in its head, {recorded}. Got {sha256}")
    return _decode(payload, build), sha256


def _decode(payload: bytes, build: Callable[..., State]) -> State:
    try:
        return build(**cast("dict[str, object]", tensor_files.unpickle_tensors(payload)))
    except Exception as error:  # whatever `unpickle_tensors` lets through, or what holds no such fields
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise _DamageError(f"must hold a state as it was saved. Got: {reason}") from error
