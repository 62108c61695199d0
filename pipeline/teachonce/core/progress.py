"""Progress bars: what a person sees while a stage runs."""

import logging
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from teachonce.core import terminal

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_BARS: "weakref.WeakSet[tqdm[Any]]" = weakref.WeakSet()
"""The bars of this process, closed ones too, as long as they are in use."""


def bar(items: Iterable[T], *, label: str, total: int, unit: str, initial: int = 0, shown: bool = True) -> "tqdm[T]":
    """A bar with rate and time left on stderr; in a log file it becomes a line every half minute.

    Args:
        items: what to iterate over; a range for a bar moved by hand with `update`.
        label: the stage and what it works on.
        total: how many units make the whole.
        unit: what is counted, in the singular; shown as `unit/s`.
        initial: units that were done before this run.
        shown: False for the ranks whose bar would only repeat the first one's.
    """
    # A log keeps every line: there, a bar that moves five times a second would fill it.
    interval_s = 0.2 if sys.stderr is not None and sys.stderr.isatty() else 30.0
    drawn = tqdm(
        items,
        desc=terminal.printable(label),
        total=total,
        unit=f" {unit}s",
        initial=initial,
        dynamic_ncols=True,
        disable=not shown or sys.stderr is None,
        file=terminal.BarStream(),
        smoothing=0.1,
        mininterval=interval_s,
        maxinterval=interval_s,
    )
    _BARS.add(drawn)
    return drawn


@contextmanager
def status_if_slow(text: str, after_s: float = 1.0) -> Iterator[None]:
    """A wait that tells what it is for: in the label of the bar that is open, else in a line of the log.

    Args:
        text: what is waited for.
        after_s: seconds that the wait may last in silence.
    """
    labels: list[tuple[tqdm[Any], str]] = []
    timer = threading.Timer(after_s, _show_status, (text, labels))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for drawn, label in labels:
            drawn.set_description_str(label)


def _show_status(text: str, labels: "list[tuple[tqdm[Any], str]]") -> None:
    visible = [drawn for drawn in _BARS if not drawn.disable]
    # A line would be written behind the bar, which ends in no line end: the two would run into each other.
    for drawn in visible:
        label = str(drawn.desc or "")
        labels.append((drawn, label))
        drawn.set_description_str(f"{label}, {text}")
    if not visible:
        _LOG.warning("%s", text)
