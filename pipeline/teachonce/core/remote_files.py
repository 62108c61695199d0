"""What lies behind a URL, by fsspec and with an end: whoever answers could send for ever, or be silent for ever."""

import asyncio
import concurrent.futures
import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

_LOG = logging.getLogger(__name__)

STALL_TIMEOUT_S = 180.0
"""Seconds after which a file is given up of which too little comes: longer than fsspec waits before it tries again."""
MIN_BYTES_PER_S = 1000
"""Bytes of a file that must come in that time, on the mean: a tenth of what a telephone line brings."""
LISTING_TIMEOUT_S = 600.0
"""Seconds for all names of a folder."""
MAX_DEPTH = 32
"""Most folders within each other; those of a cache go six deep."""
MAX_NAMES = 1 << 21
"""Most files and folders below a folder that is listed step by step."""
WORD_S = 30.0
"""Seconds of waiting after which a person is told."""


class TooLongError(Exception):
    """More bytes or names are offered than there may be."""


class StalledError(Exception):
    """Nothing, or next to nothing, came for so long that the rest never will."""


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem behind a URL, and the URL's path in it."""
    # s3fs would read parts of a large object side by side, each into memory, and tell of them when they are there.
    options = {"max_concurrency": 1} if url.startswith(("s3://", "s3a://")) else {}
    system, root = fsspec.url_to_fs(url, **options)
    return system, str(root)


def download(system: fsspec.AbstractFileSystem, source: str, target: Path, most_bytes: int) -> None:
    """Copy a file; what was copied before it failed is left to the caller.

    Args:
        system: filesystem that has the file.
        source: its path there.
        target: where the copy goes on this machine.
        most_bytes: how many bytes it may have.

    Raises:
        TooLongError: it has more; no more than these, and what is read at a time, were fetched.
        StalledError: nothing more of it comes, or too slowly.
        Exception: whatever the filesystem raises.
    """
    limit = _ByteLimit(most_bytes)
    future = _start_call(system, "get_file", source, str(target), callback=limit)
    _wait_for(future, source, STALL_TIMEOUT_S, lambda: limit.value)


def list_sizes(system: fsspec.AbstractFileSystem, root: str) -> dict[str, int]:
    """Bytes of every file below a path, by its name relative to it.

    Raises:
        TooLongError: names go on without end.
        StalledError: no answer comes.
        Exception: whatever the filesystem raises.
    """
    # fsspec keeps listings: a file that was uploaded since would be called missing.
    system.invalidate_cache()
    # Of some filesystems a size is not to be had.
    return {name.removeprefix(f"{root}/"): int(info["size"] or 0) for name, info in _listed(system, root).items()}


def _listed(system: fsspec.AbstractFileSystem, root: str) -> dict[str, dict[str, Any]]:
    """What fsspec tells of every file below a path, by its name.

    fsspec's own walk takes a folder that cannot be read for an empty one. Only a filesystem that lists in another way,
    as S3 does in one request, is asked to.
    """
    if _has_find(system):
        return dict(_call(system, "find", root))
    until_s = time.monotonic() + LISTING_TIMEOUT_S
    below: dict[str, dict[str, Any]] = {}
    # A page may name a folder below itself each time it is asked.
    folders = [(root, 0)]
    count = 0
    while folders:
        folder, depth = folders.pop()
        if time.monotonic() > until_s:
            raise StalledError(f"its folders do not end within {LISTING_TIMEOUT_S:.0f} s")
        infos = _call(system, "ls", folder)
        below |= {info["name"].rstrip("/"): info for info in infos if info["type"] != "directory"}
        names = {info["name"].rstrip("/") for info in infos if info["type"] == "directory"} - {folder}
        folders += [(name, depth + 1) for name in sorted(names)]
        count += len(infos)
        if names and depth >= MAX_DEPTH:
            raise TooLongError(f"it has more than {MAX_DEPTH} folders within each other")
        if count > MAX_NAMES:
            raise TooLongError(f"it has more than {MAX_NAMES:,} names")
    return below


def _has_find(system: fsspec.AbstractFileSystem) -> bool:
    """Whether it finds files in a way of its own."""
    if isinstance(system, AsyncFileSystem):
        return type(system)._find is not AsyncFileSystem._find  # noqa: SLF001 - what fsspec's filesystems override
    return type(system).find is not AbstractFileSystem.find


def _call(system: fsspec.AbstractFileSystem, name: str, path: str) -> Any:
    future = _start_call(system, name, path, detail=True)
    _wait_for(future, path, LISTING_TIMEOUT_S, lambda: 0)
    return future.result()


class _ByteLimit(fsspec.Callback):  # type: ignore[misc]
    """Told by fsspec of each piece of a file as it arrives, and ends the copy where there are too many."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most_bytes = most_bytes

    def set_size(self, size: int | None) -> None:
        """The length that the other side claims, if any."""
        self._require(size or 0)

    def relative_update(self, inc: int = 1) -> None:
        """Count a piece that has come: a claim binds nobody, so the pieces are counted too."""
        self.value += inc
        self._require(self.value)

    def _require(self, count: int) -> None:
        if count > self._most_bytes:
            raise TooLongError(f"{count:,} bytes")


def _start_call(
    system: fsspec.AbstractFileSystem, name: str, *arguments: object, **options: object
) -> "concurrent.futures.Future[Any]":
    """Call a method of the filesystem in fsspec's loop or in a thread, so that whoever waits can give it up."""
    if system.async_impl:
        return asyncio.run_coroutine_threadsafe(getattr(system, f"_{name}")(*arguments, **options), system.loop)
    return _in_thread(functools.partial(getattr(system, name), *arguments, **options))


def _in_thread(function: Callable[[], Any]) -> "concurrent.futures.Future[Any]":
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    # What was given up may still end, and then has nobody to tell.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:  # it is raised again where the work is waited for
            future.set_exception(error)

    # A daemon: what was given up keeps no process alive.
    threading.Thread(target=run, name="fetch", daemon=True).start()
    return future


def _wait_for(
    future: "concurrent.futures.Future[Any]", where: str, limit_s: float, progress: Callable[[], int]
) -> None:
    """Wait until the call is done, or until too little has come for `limit_s`: a byte now and then is no progress."""
    start_count, since_s, is_reported = progress(), time.monotonic(), False
    try:
        while not concurrent.futures.wait([future], timeout=0.5).done:
            waited_s, count = time.monotonic() - since_s, progress() - start_count
            # A span begins anew when enough has come for a whole one: slow lines go on, however long they take.
            if count >= MIN_BYTES_PER_S * limit_s:
                start_count, since_s, is_reported = progress(), time.monotonic(), False
            elif waited_s > limit_s:
                raise StalledError(f"{_amount(count)} came for {limit_s:.0f} s")
            elif waited_s > WORD_S and count < MIN_BYTES_PER_S * waited_s and not is_reported:
                text = "%s: %s has come for %.0f s; given up after %.0f"
                _LOG.warning(text, where, _amount(count), waited_s, limit_s)
                is_reported = True
    finally:
        # Also where the wait was interrupted: a coroutine of fsspec would go on writing a file that nobody wants.
        future.cancel()
    future.result()


def _amount(count: int) -> str:
    return f"no more than {count:,} bytes" if count else "nothing"
