"""Progress bars: what a person sees while a stage runs."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from teachonce.core import terminal

T = TypeVar("T")


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
    return tqdm(
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
