"""Waits that last: each says once, in a line, what it waits for and how to get it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER_S = 20.0
"""Seconds of a wait before it says so."""

_LOG = logging.getLogger(__name__)


class WaitMonitor:
    """Waits of one kind, watched by one thread: entering and leaving costs nothing."""

    def __init__(self, text: Callable[[], str], after_s: float = AFTER_S) -> None:
        """Start the thread that watches; no wait has begun.

        Args:
            text: the line, made when it is needed; by another thread than the one that waits.
            after_s: seconds that a wait may last in silence.
        """
        self._text = text
        self._after_s = after_s
        self._since_s: float | None = None
        self._closed = threading.Event()
        # A daemon: a wait that ends with the process needs nobody who watches it.
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        """Note when a wait begins."""
        self._since_s = time.monotonic()

    def __exit__(self, *_: object) -> None:
        """Note that it has ended."""
        self._since_s = None

    def close(self) -> None:
        """End the thread, and wait for its end."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        reported_s: float | None = None
        while not self._closed.wait(min(1.0, self._after_s)):
            # Read once: the thread that waits sets it to None at any moment.
            since_s = self._since_s
            if since_s is None or since_s == reported_s or time.monotonic() - since_s < self._after_s:
                continue
            reported_s = since_s
            _LOG.warning("%s", self._text())


@contextmanager
def report_if_slow(text: Callable[[], str], after_s: float = AFTER_S) -> Iterator[None]:
    """One wait; arguments as those of `WaitMonitor`."""
    monitor = WaitMonitor(text, after_s)
    try:
        with monitor:
            yield
    finally:
        monitor.close()
