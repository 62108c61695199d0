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
"""After which a file of which too little comes is given up: longer than fsspec itself waits before it tries again."""
MIN_BYTES_PER_S = 1000
"""Of a file, over that time: a tenth of what a telephone line brings."""
LISTING_TIMEOUT_S = 600.0
"""For all names of a folder."""
MAX_DEPTH = 32
"""Folders within each other; those of a cache go six deep."""
MAX_NAMES = 1 << 21
"""Of files and folders below a folder that is listed step by step."""
WORD_S = 30.0
"""Of waiting, until a person is told."""


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
        system: where it is.
        source: its path there.
        target: its path here.
        most_bytes: that it may have.

    Raises:
        TooLongError: it has more; no more than these, and what is read at a time, were fetched.
        SilenceError: nothing more of it comes, or too slowly.
        Exception: whatever the filesystem raises.
    """
    count = _Count(most_bytes)
    work = _begin(system, "get_file", source, str(target), callback=count)
    _wait(work, source, STALL_TIMEOUT_S, lambda: count.value)


def list_sizes(system: fsspec.AbstractFileSystem, root: str) -> dict[str, int]:
    """Bytes of every file below a path, by its name relative to it.

    Raises:
        TooLongError: names go on without end.
        SilenceError: no answer comes.
        Exception: whatever the filesystem raises.
    """
    system.invalidate_cache()
    # Of some filesystems a size is not to be had.
    return {name.removeprefix(f"{root}/"): int(info["size"] or 0) for name, info in _listed(system, root).items()}


def _listed(system: fsspec.AbstractFileSystem, root: str) -> dict[str, dict[str, Any]]:
    """What is known of every file below a path.

    fsspec's own walk takes a folder that cannot be read for an empty one. Only a filesystem that lists in another way,
    as S3 does in one request, is asked to.
    """
    if _has_find(system):
        return dict(_answer(system, "find", root))
    until_s = time.monotonic() + LISTING_TIMEOUT_S
    below: dict[str, dict[str, Any]] = {}
    # A page may name a folder below itself each time it is asked.
    folders = [(root, 0)]
    count = 0
    while folders:
        folder, depth = folders.pop()
        if time.monotonic() > until_s:
            raise StalledError(f"its folders do not end within {LISTING_TIMEOUT_S:.0f} s")
        infos = _answer(system, "ls", folder)
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


def _answer(system: fsspec.AbstractFileSystem, name: str, path: str) -> Any:
    work = _begin(system, name, path, detail=True)
    _wait(work, path, LISTING_TIMEOUT_S, lambda: 0)
    return work.result()


class _Count(fsspec.Callback):  # type: ignore[misc]
    """Hears of each piece of a file as it arrives."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most_bytes = most_bytes

    def set_size(self, size: int | None) -> None:
        """What is said to come."""
        self._require(size or 0)

    def relative_update(self, inc: int = 1) -> None:
        """What has come."""
        self.value += inc
        self._require(self.value)

    def _require(self, count: int) -> None:
        if count > self._most_bytes:
            raise TooLongError(f"{count:,} bytes")


def _begin(
    system: fsspec.AbstractFileSystem, name: str, *arguments: object, **options: object
) -> "concurrent.futures.Future[Any]":
    """A method's work, done elsewhere, so that it can be given up."""
    if system.async_impl:
        return asyncio.run_coroutine_threadsafe(getattr(system, f"_{name}")(*arguments, **options), system.loop)
    return _in_thread(functools.partial(getattr(system, name), *arguments, **options))


def _in_thread(act: Callable[[], Any]) -> "concurrent.futures.Future[Any]":
    work: concurrent.futures.Future[Any] = concurrent.futures.Future()
    # What was given up may still end, and then has nobody to tell.
    work.set_running_or_notify_cancel()

    def do() -> None:
        try:
            work.set_result(act())
        except Exception as error:  # it is raised again where the work is waited for
            work.set_exception(error)

    # A daemon: what was given up keeps no process alive.
    threading.Thread(target=do, name="fetch", daemon=True).start()
    return work


def _wait(work: "concurrent.futures.Future[Any]", where: str, most_s: float, progress: Callable[[], int]) -> None:
    """Until it is done, or until too little has come for so long: a byte now and then is no progress."""
    before, since_s, is_reported = progress(), time.monotonic(), False
    try:
        while not concurrent.futures.wait([work], timeout=0.5).done:
            waited_s, count = time.monotonic() - since_s, progress() - before
            if count >= MIN_BYTES_PER_S * most_s:
                before, since_s, is_reported = progress(), time.monotonic(), False
            elif waited_s > most_s:
                raise StalledError(f"{_little(count)} came for {most_s:.0f} s")
            elif waited_s > WORD_S and count < MIN_BYTES_PER_S * waited_s and not is_reported:
                text = "%s: %s has come for %.0f s; given up after %.0f"
                _LOG.warning(text, where, _little(count), waited_s, most_s)
                is_reported = True
    finally:
        work.cancel()
    work.result()


def _little(count: int) -> str:
    return f"no more than {count:,} bytes" if count else "nothing"
