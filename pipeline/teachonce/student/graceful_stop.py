"""A run that is asked to end: it hears the signal, ends its step, and is saved."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Request:
    """Whether someone asked."""

    def __init__(self) -> None:
        self.made = False

    def hear(self, number: int, _: FrameType | None) -> None:
        """Handle a signal. Several SIGTERM are one request (a scheduler's, a launcher's); Ctrl-C twice is a hurry."""
        if self.made and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.made = True


@contextmanager
def listening() -> Iterator[Request]:
    """Take SIGTERM and Ctrl-C for requests, not for the end."""
    request = Request()
    before = {number: signal.signal(number, request.hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
