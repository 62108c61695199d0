"""Write-then-rename: a reader, a crash or a full disk never meets half a file or half a folder."""

import errno
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.base import errors, hashing

PARTIAL = ".partial"
"""Suffix of what is being written; ignored by git and DVC, removed by the next run."""
_TICK_NS = 100_000_000  # a file system's clock is coarse: Linux moves it every 1 to 10 ms


def partial(path: Path) -> Path:
    """The sibling under which `path` is written until it is whole."""
    return path.with_name(path.name + PARTIAL)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give an empty sibling file to fill; on success it reaches the disk and replaces `path`, on failure it is removed.

    Raises:
        DiskError: there is no room for it.
    """
    draft = partial(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if draft.is_symlink() or not draft.is_file():
        # A pipe that stands there would be waited for, a link written through.
        remove(draft)
    try:
        with full_disk(path), draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        # On a full disk, half a checkpoint would be in the way of the next one.
        draft.unlink(missing_ok=True)
        raise
    draft.replace(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, reach the disk, rename onto `path`.

    Raises:
        DiskError: there is no room for it.
    """
    with new_file(path) as stream:
        stream.write(data)


def remove(path: Path) -> None:
    """Remove whatever stands there, if anything: a folder with all it holds; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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


def stamp(stream: BinaryIO) -> tuple[int, ...] | None:
    """What tells that an open file is the one met before, unchanged; None where that cannot be told yet.

    Right after a file was written to, another write may leave its times as they are.
    """
    now = os.fstat(stream.fileno())
    if time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) < _TICK_NS:
        return None
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


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
    parts = []
    # A file without a buffer gives 2 GiB at a time.
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_json(path: Path, most_bytes: int) -> object:
    """Plain data from a JSON file; ValueError where it is longer than `most_bytes`, too deep, or no JSON in UTF-8."""
    return parse_json(read_bytes(path, most_bytes))


def parse_json(text: bytes) -> object:
    """Plain data from JSON that nobody vouches for; ValueError where it is too deep, or no JSON in UTF-8."""
    try:
        data: object = json.loads(text.decode())
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
    with (folder / "lock").open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
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

    Args:
        path: a file of locks, one for all names; made if missing, and left.
        name: what is taken in turns. The kernel ends the turn of a process that dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lock on one byte, not a file for each name: nothing to clean up, and NFS passes it on.
    at = hashing.seed64(name) >> 2
    with path.open("a+", encoding="utf-8") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX, 1, at)
        yield
