"""Time rounds of work: find how much makes a round, warm up, repeat."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from teachonce.core import config, device_memory

_PARTS = 5
"""A round takes at least this part of the time there is, where it may."""
_LEAST = 3
"""Rounds, however long they take."""


class Throughput(config.Model):
    """How many views a second, over some rounds."""

    views: int
    """Views of a round."""
    rounds: int
    """How many were timed."""
    views_s: float
    """Median over the rounds."""
    slowest: float
    """Of the slowest round."""
    fastest: float
    """Of the fastest one."""


def throughput(views: int, seconds: Sequence[float]) -> Throughput:
    """What rounds of so many views tell, each having taken so many seconds."""
    return Throughput(
        views=views,
        rounds=len(seconds),
        views_s=views / statistics.median(seconds),
        slowest=views / max(seconds),
        fastest=views / min(seconds),
    )


def round_size(take: Callable[[int], float], most: int, seconds: float) -> int:
    """The smallest size of a round that takes long enough to be timed; what is run for it warms up, too.

    Args:
        take: runs a round of a size; its seconds.
        most: the largest size that makes sense.
        seconds: the time there is for all rounds.
    """
    take(1)
    found = 1
    while take(found) < seconds / _PARTS and found < most:
        found = min(most, 2 * found)
    return found


def time_rounds(take: Callable[[], float], seconds: float) -> list[float]:
    """Seconds of each round, until the time there is has been used."""
    found: list[float] = []
    while len(found) < _LEAST or sum(found) < seconds:
        found.append(take())
    return found


def within_memory(where: str) -> AbstractContextManager[None]:
    """Work whose batch may be too large for the device: then a ConfigError."""
    return device_memory.refuse_out_of_memory(
        where, "batch_size", "a larger one", "Lower it; for a student, or raise accumulate"
    )
