"""What one process holds at a time: waited for, never for a dead one, since the kernel frees what that held."""

import errno
import fcntl
import logging
import math
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from teachonce.core import errors, hashing, waiting

_LOG = logging.getLogger(__name__)
_POLLS_A_SECOND = 5
_IRREGULAR = {errno.EISDIR, errno.ELOOP, errno.ENXIO}
"""What the system says of a folder, a link and a socket."""
_FLOCK = "hhqqi"
"""The kernel's `struct flock`: type, whence, start, length, process."""


class Lock:
    """A file that one process at a time holds; the kernel frees it when that process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[str] | None = None
        self._polls = 0

    def take(self) -> bool:
        """Hold it, unless another process does; True where this one holds it now."""
        stream = _open_lock_file(self._path)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return False
        if not is_same_file(stream, self._path):
            # Removed by whoever held it before: whoever comes next would open another file, and hold that.
            stream.close()
            return self.take()
        # Only now: until the lock was taken, the text was another process's name, which those who wait are shown.
        stream.truncate(0)
        stream.write(f"{os.getpid()} on {socket.gethostname()}")
        stream.flush()
        self._stream = stream
        return True

    def wait(self, work: object, limit_s: float = math.inf) -> bool:
        """Hold it as soon as no other process does; after a second, say in a line, once, for whom this one waits.

        Args:
            work: what the lock guards, for the line.
            limit_s: seconds to wait at most.

        Returns:
            Whether this process holds it now.
        """
        deadline_s = time.monotonic() + limit_s
        while not self.take():
            self._polls += 1
            if self._polls == _POLLS_A_SECOND:
                _LOG.warning("%s: is in use by process %s. Waiting until that ends", work, self.owner())
            if time.monotonic() > deadline_s:
                return False
            time.sleep(1 / _POLLS_A_SECOND)
        return True

    def owner(self) -> str:
        """Process and machine that hold it."""
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return "?"

    @contextmanager
    def hold(self, work: object) -> Iterator[None]:
        """Hold it, as soon as no other process does; `work` as in `wait`."""
        self.wait(work)
        try:
            yield
        finally:
            self.close()

    def remove(self) -> None:
        """Remove the file, which is held; whoever waits for it makes another one."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it, if it is held."""
        if self._stream:
            self._stream.close()
            self._stream = None


def folder_lock(folder: Path) -> Lock:
    """The lock that a process holds while it works in a folder: a file in it."""
    return Lock(folder / "lock")


def hold_folder(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder for one process, as soon as no other one does."""
    return folder_lock(folder).hold(folder)


@contextmanager
def hold_name(path: Path, name: str) -> Iterator[None]:
    """Wait until no other process, on any machine that shares the filesystem, has its turn at the same name.

    A wait that lasts names the process that has it.

    Args:
        path: a file of locks, one for all names; made if missing, and left.
        name: what is taken in turns. The kernel ends the turn of a process that dies.
    """
    # A lock on one byte, not a file for each name: nothing to clean up, and NFS passes it on. Two names that share a
    # byte only wait for each other. Shifted, since an offset is a signed number of 64 bits.
    offset = hashing.seed64(name) >> 2
    with _open_lock_file(path) as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            with waiting.report_if_slow(lambda: _turn_message(stream, offset, name)):
                fcntl.lockf(stream, fcntl.LOCK_EX, 1, offset)
        yield


def _open_lock_file(path: Path) -> IO[str]:
    """A file of locks, made if missing, with its folder.

    What else stands there is not removed: of two processes that did so, each could hold a file of its own.

    Raises:
        DiskError: it is no regular file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A pipe would be waited for; through a link, the file it leads to would be emptied.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in _IRREGULAR:
            raise
        raise _irregular_error(path) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "a+", encoding="utf-8")
    os.close(descriptor)
    raise _irregular_error(path)


def _irregular_error(path: Path) -> errors.DiskError:
    cure = "Remove it, and run the same command again"
    return errors.DiskError.for_value(path, "it", "a regular file", "another thing of that name", cure)


def _turn_message(stream: IO[str], offset: int, name: str) -> str:
    """The line of a wait: which process has the turn, and how to end it."""
    request = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, offset, 1, 0)
    pid = struct.unpack(_FLOCK, fcntl.fcntl(stream, fcntl.F_GETLK, request))[-1]
    # Of a process on another machine the kernel may tell nothing.
    holder, cure = (f"process {pid}", f"kill {pid}") if pid > 0 else ("a process elsewhere", "there")
    return f"{name}: waiting for {holder}, which works on the same. To go on before it is done, end it: {cure}"


def is_same_file(stream: IO[Any], path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.lstat())
    except FileNotFoundError:
        return False
