"""A run that is asked to end: it takes the signal, ends its step, and is saved."""

import signal
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class GracefulStop:
    """Within it, SIGTERM and Ctrl-C are a request, not the end.

    The loop asks between two steps: a signal that ended a step would leave weights that no whole step made, and nothing
    to go on from but the last checkpoint.
    """

    def __init__(self) -> None:
        self.requested = False
        """Whether someone asked."""

    def __enter__(self) -> "GracefulStop":
        """Take the signals."""
        self._handlers = {signum: signal.signal(signum, self.handle) for signum in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Leave them to whoever had them before."""
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def handle(self, signum: int, _: FrameType | None) -> None:
        """Take a signal. Several SIGTERM are one request (a scheduler's, a launcher's); Ctrl-C twice is a hurry."""
        if self.requested and signum == signal.SIGINT:
            raise KeyboardInterrupt
        # Only a flag is set: a handler runs between any two lines, where nothing may be saved and no rank be asked.
        self.requested = True
