"""Write-then-rename: a reader, a crash or a full disk never meets half a file or half a folder."""

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from teachonce.core import disk_errors, locks

PARTIAL = ".partial"
"""Suffix of what is being written; ignored by git and DVC, removed by the next run."""
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
# A file system's clock is coarse, Linux moves it every 1 to 10 ms: two writes within a tick leave the same times.
_TICK_NS = 100_000_000


def partial_path(path: Path) -> Path:
    """The sibling under which `path` is written until it is whole."""
    return path.with_name(path.name + PARTIAL)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give an empty sibling file to fill; on success it is on the disk and renamed onto `path`, on failure removed.

    Of two processes that write one path, the second waits for the first.

    Raises:
        DiskError: there is no room for it, or no right to write there.
    """
    with disk_errors.explain_write_errors(path), _draft(path) as stream:
        try:
            yield stream
            # Whole and on the disk before it has its name: whoever meets the name, after a crash or a power cut too,
            # meets the old file or the new one, never half of one.
            stream.flush()
            os.fsync(stream.fileno())
            partial_path(path).replace(path)
        except BaseException:
            # On a full disk, half a checkpoint would be in the way of the next one.
            partial_path(path).unlink(missing_ok=True)
            raise


@contextmanager
def _draft(path: Path) -> Iterator[BinaryIO]:
    """The sibling file, empty, and this process's alone."""
    draft = partial_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        # Looked at once: another process may rename its draft at any moment, and what stands there next is not to be
        # taken for what was. A pipe would be waited for, a link written through.
        if not stat.S_ISREG(draft.lstat().st_mode):
            remove(draft)
    while True:
        # Not emptied before it is locked, since another process may be writing it; nor in append mode, which would
        # write everything at the end.
        with os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Whoever locked it before has renamed or removed it: a lock on that file would keep nobody out.
            if locks.is_same_file(stream, draft):
                stream.truncate(0)
                yield stream
                return


def is_stream(path: Path) -> bool:
    """Whether a path is a character device, no link to one, or names an open descriptor: written to, never replaced."""
    try:
        return _descriptor(path) is not None or stat.S_ISCHR(path.lstat().st_mode)
    except OSError:
        return False


def _descriptor(path: Path) -> int | None:
    match = _DESCRIPTOR.fullmatch(str(path))
    return _STANDARD.get(str(path)) if match is None else int(match[1])


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """Give what `is_stream` tells of, to be written to.

    Raises:
        OSError: the descriptor is closed.
        DiskError: there is no right to write there, or no room.
    """
    number = _descriptor(path)
    with disk_errors.explain_write_errors(path):
        # A duplicate goes on where the descriptor stands; opened anew, a file would be written from its start.
        descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC) if number is None else os.dup(number)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, reach the disk, rename onto `path`; but write into a device or an open descriptor.

    Raises:
        DiskError: there is no room for it, or no right to write there.
    """
    with open_stream(path) if is_stream(path) else new_file(path) as target:
        target.write(data)


def remove(path: Path) -> None:
    """Remove whatever stands there, if anything: a folder with all it holds; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, data: object) -> None:
    """Write plain data as indented JSON with sorted keys and a final newline; NaN is refused (ValueError)."""
    # What reads a stream may be a terminal, which obeys some letters.
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=is_stream(path), allow_nan=False)
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


def version_stamp(stream: BinaryIO) -> tuple[int, ...] | None:
    """What tells that an open file is the one met before, unchanged; None where that cannot be told yet.

    Right after a file was written to, another write may leave its times as they are. So does, on tmpfs, a write through
    a mapping of it that was made before: that one is not seen.
    """
    status = os.fstat(stream.fileno())
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _TICK_NS:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """All of a regular file that nobody vouches for; ValueError where it is longer than it may be."""
    with open_regular(path) as stream:
        return read_all(stream, most_bytes)


def read_all(stream: BinaryIO, most_bytes: int) -> bytes:
    """All of a file that nobody vouches for; a longer one than it may be is refused unread (ValueError)."""
    size = require_length(stream, most_bytes)
    parts = []
    # A file without a buffer gives 2 GiB at a time.
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def require_length(stream: BinaryIO, most_bytes: int) -> int:
    """The length of a file that nobody vouches for, which stands at its begin then; ValueError where it is too long."""
    size = stream.seek(0, 2)
    if size > most_bytes:
        raise ValueError(f"has {size:,} bytes, may have {most_bytes:,}")
    stream.seek(0)
    return size


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
    """Give an empty sibling folder to fill; on success it replaces `path`, on failure it is removed.

    For folders that nobody names from outside, which no two processes write at once; a stage's output is one of
    `outputs.Output`, which guards what stands there.
    """
    draft = partial_path(path)
    _remove_rest(draft)
    draft.mkdir(parents=True)
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    replace_folder(draft, path)


def replace_folder(draft: Path, path: Path) -> None:
    """Rename a finished folder onto `path`, whatever stood there; `restore_folder` mends what a crash leaves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # rename(2) replaces only an empty folder: step the old one aside first, so that a crash between leaves both.
    _remove_rest(_retired_path(path))
    if os.path.lexists(path):
        path.rename(_retired_path(path))
    draft.rename(path)
    _remove_rest(_retired_path(path))


def _remove_rest(path: Path) -> None:
    """Remove what a killed run left, so far as that goes: what cannot go then fails the next step by its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def restore_folder(path: Path) -> None:
    """After a crash within `replace_folder`: the old folder where there is none, or else no rest of it."""
    if _retired_path(path).is_dir() and not os.path.lexists(path):
        _retired_path(path).rename(path)
    _remove_rest(_retired_path(path))


def copy_folder(source: Path, target: Path) -> None:
    """Copy every file below a folder; `shutil.copytree` hides from `disk_errors` what the system said.

    Raises:
        DiskError: there is no room for it, or no right to write there.
    """
    for path in sorted(source.rglob("*")):
        if path.is_file():
            with path.open("rb") as original, new_file(target / path.relative_to(source)) as copy:
                shutil.copyfileobj(original, copy)


def _retired_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.old{PARTIAL}")


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a finished, read-only file, so that it takes no room twice; copy it where no link is allowed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        # As a link would be: what a recorded sha256 covers is replaced by rename, never written in place.
        target.chmod(0o444)
