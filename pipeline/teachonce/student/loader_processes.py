"""Loader processes: refused where they lack room, and no wait without an end where one of them is gone."""

import multiprocessing
import os
import signal
from collections.abc import Generator
from multiprocessing import connection
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from typing import TypeVar

from torch import Tensor
from torch.utils.data import DataLoader

from teachonce.core import errors, waiting

T = TypeVar("T")
AHEAD = 2
"""Parts of batches that a process makes ahead."""
_SHARED = "/dev/shm"  # noqa: S108 - where Linux keeps what processes share
_PROCESS_BYTES = 1 << 15
"""A process's locks and queues."""
_PAGE_BYTES = 1 << 12
_DIES_S = 2.0
"""What a process needs to be seen dead once its connections are."""


def require_shared_memory(slot_bytes: int, processes: int) -> None:
    """Refuse loader processes that have too little shared memory to hand over what they make ahead.

    Args:
        slot_bytes: of all that a process renders into.
        processes: all on this machine, of all ranks.

    Raises:
        ConfigError: there is too little.
    """
    needed = processes * (slot_bytes + AHEAD * _PAGE_BYTES + _PROCESS_BYTES)
    try:
        state = os.statvfs(_SHARED)
    except OSError:
        # Another system than Linux; where there really is none, starting the processes says so.
        return
    free = state.f_bavail * state.f_frsize
    if processes and free < needed:
        condition = f"at least {needed:,}, for {processes} loader processes"
        raise errors.ConfigError.for_value(_SHARED, "free bytes", condition, f"{free:,}", shared_memory_cure(needed))


def shared_memory_cure(bytes_needed: int) -> str:
    """What to do about too little shared memory."""
    size = f"{-(-bytes_needed // (1 << 20)) * 2}m"
    return (
        f"Set workers: 0 in configs/student, or give it more: docker run --shm-size={size} …, or "
        f"mount -o remount,size={size} {_SHARED}"
    )


def share(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, moved to shared memory unless it lies there.

    Raises:
        DiskError: there is no room for it.
    """
    try:
        tensor.share_memory_()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise errors.DiskError(
            "shared memory", f"has no room for a batch ({reason})", shared_memory_cure(tensor.nbytes)
        ) from error
    return tensor


class LoaderProcess(ForkServerProcess):
    """A process that ends in silence where torch takes it for dead."""

    def run(self) -> None:
        """Run what it was started for."""
        try:
            super().run()
        except AssertionError as error:
            # With what it was forked from gone, it passes for dead in the process that reads, and is asked to end where
            # torch expects no such wish. That process says in a line what happened.
            if "final signal" not in str(error):
                raise


class _LoaderContext(ForkServerContext):
    Process = LoaderProcess


def start_context(*preloaded: str) -> BaseContext:
    """How they start: from a process that has imported what they need, and that no thread runs in."""
    # Zarr's threads do not survive a fork of this process.
    forkserver = _LoaderContext()
    forkserver.set_forkserver_preload(list(preloaded))
    return forkserver


def iter_results(loader: DataLoader[T], reads: object) -> Generator[T]:
    """What loader processes give.

    Args:
        loader: with processes or without.
        reads: where they read, for messages.

    Raises:
        ConfigError: they cannot be started.
        PeerError: one of them is gone.
    """
    before = set(multiprocessing.active_children())
    try:
        stream = iter(loader)
    except OSError as error:
        raise errors.ConfigError(
            "student", f"loader processes cannot be started ({error.strerror or error})", shared_memory_cure(1 << 26)
        ) from error
    # torch's loader keeps its processes to itself: those that are new since it began are taken for them.
    started = [process for process in multiprocessing.active_children() if process not in before]
    watch = waiting.WaitMonitor(lambda: _silent(started, reads))
    try:
        while True:
            try:
                with watch:
                    value = next(stream)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                raise _gone(started, error) from error
            yield value
    finally:
        watch.close()
        # Its end asks the processes to end.
        del stream


def _gone(started: list[BaseProcess], error: Exception) -> Exception:
    """A line where a process is dead; else the error, which is a bug."""
    if not connection.wait([process.sentinel for process in started], _DIES_S):
        return error
    dead = next(process for process in started if not process.is_alive())
    return errors.PeerError(
        "student",
        f"loader process {dead.pid} is gone ({_end(dead.exitcode)}). If the machine's memory "
        "was full, lower workers or batch_size in configs/student",
        "Run the same command again to go on from the last checkpoint",
    )


def _end(code: int | None) -> str:
    # What the processes are forked from knows; where it is dead too, the code is 255.
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _silent(started: list[BaseProcess], reads: object) -> str:
    pids = ", ".join(str(process.pid) for process in started) or "none"
    return (
        f"student: still waiting for a batch (loader processes: {pids}). See that {reads} can be read, and that none "
        "of them is stopped; Ctrl-C ends the run and keeps its checkpoint"
    )
