"""Write-then-rename: a reader, a crash or a full disk never meets half a file or half a folder."""

import errno
import fcntl
import json
import os
import shutil
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from pipeline.base import errors, hashing, waiting

PARTIAL = ".partial"
"""Suffix of what is being written; ignored by git and DVC, removed by the next run."""
_FLOCK = "hhqqi"
"""The kernel's `struct flock`: type, whence, start, length, process."""


def partial(path: Path) -> Path:
    """The sibling under which `path` is written until it is whole."""
    return path.with_name(path.name + PARTIAL)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, reach the disk, rename onto `path`.

    Raises:
        DiskError: there is no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with full_disk(path), partial(path).open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, errors.DiskError):
        # On a full disk, half a checkpoint would be in the way of the next one.
        partial(path).unlink(missing_ok=True)
        raise
    partial(path).replace(path)


def write_json(path: Path, data: object) -> None:
    """Write plain data as indented JSON with sorted keys and a final newline; NaN is refused (ValueError)."""
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def open_regular(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a file that nobody vouches for: a pipe or a device would be waited for, or read without end.

    Raises:
        OSError: it is missing, or no regular file.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb", buffering)
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is no regular file", str(path))


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """All of a regular file that nobody vouches for; ValueError where it is longer than it may be."""
    with open_regular(path) as stream:
        return read_all(stream, most_bytes)


def read_all(stream: BinaryIO, most_bytes: int) -> bytes:
    """All of a file that nobody vouches for; a longer one than it may be is refused unread (ValueError)."""
    size = stream.seek(0, 2)
    if size > most_bytes:
        raise ValueError(f"has {size:,} bytes, may have {most_bytes:,}")
    stream.seek(0)
    return stream.read(size)


def read_json(path: Path, most_bytes: int) -> object:
    """Plain data from a JSON file; ValueError where it is longer than `most_bytes`, too deep, or no JSON in UTF-8."""
    text = read_bytes(path, most_bytes).decode()
    try:
        data: object = json.loads(text)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    return data


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty sibling folder to fill; on success it replaces `path`, on failure it is removed."""
    draft = partial(path)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    replace_folder(draft, path)


def replace_folder(draft: Path, path: Path) -> None:
    """Rename a finished folder onto `path`, whatever stood there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # rename(2) replaces only an empty folder: step the old one aside first, so that a crash between leaves both.
    old = path.with_name(f"{path.name}.old{PARTIAL}")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    draft.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Hard-link a finished, read-only file; copy it where the filesystem allows no link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o444)


@contextmanager
def full_disk(where: object = "a disk") -> Iterator[None]:
    """Turn what the system says where there is no room to write into one line.

    Args:
        where: what is written to, for the message; the system does not always tell.

    Raises:
        DiskError: the disk is full, or a quota used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise errors.DiskError(
            f"{error.filename or where}: cannot be written ({error.strerror}). Make room and run the same command "
            "again: what was finished is kept"
        ) from error


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; the kernel frees it when that process dies, however it dies.

    Raises:
        LockedError: another live process holds it; the message gives its pid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            stream.seek(0)
            owner = stream.read().strip()
            raise errors.LockedError(
                f"{folder}: is in use by process {owner}. Wait for it, or end it: kill {owner}"
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


@contextmanager
def turn(path: Path, name: str) -> Iterator[None]:
    """Wait until no other process, on any machine that shares the filesystem, has its turn at the same name.

    A wait that lasts names the process that has it.

    Args:
        path: a file of locks, one for all names; made if missing, and left.
        name: what is taken in turns. The kernel ends the turn of a process that dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lock on one byte, not a file for each name: nothing to clean up, and NFS passes it on.
    at = hashing.seed64(name) >> 2
    with path.open("a+") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            with waiting.watched(lambda: _has_turn(stream, at, name)):
                fcntl.lockf(stream, fcntl.LOCK_EX, 1, at)
        yield


def _has_turn(stream: TextIO, at: int, name: str) -> str:
    """A line of who has a turn."""
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, at, 1, 0)
    pid = struct.unpack(_FLOCK, fcntl.fcntl(stream, fcntl.F_GETLK, wanted))[-1]
    # Of a process on another machine the kernel may tell nothing.
    holder, cure = (f"process {pid}", f"kill {pid}") if pid > 0 else ("a process elsewhere", "there")
    return f"{name}: waiting for {holder}, which works on the same. To go on before it is done, end it: {cure}"
