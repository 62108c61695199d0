"""Time rounds of work: find how much makes a round, warm up, repeat."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from teachonce.core import config, device_memory

_ROUND_SHARE = 5
"""A round takes at least one of so many parts of the time there is, unless the largest size is quicker."""
_MIN_ROUNDS = 3
"""Rounds that are timed, however long they take: a median of fewer says nothing."""


class Throughput(config.Model):
    """How many views a second, over some rounds."""

    views: int
    """Views of one round."""
    rounds: int
    """How many rounds were timed."""
    views_s: float
    """Views a second, the median over the rounds."""
    slowest: float
    """Views a second of the slowest round."""
    fastest: float
    """Views a second of the fastest round."""


def throughput(views: int, seconds: Sequence[float]) -> Throughput:
    """The speed that rounds of `views` views show, from the seconds that each took."""
    return Throughput(
        views=views,
        rounds=len(seconds),
        views_s=views / statistics.median(seconds),
        slowest=views / max(seconds),
        fastest=views / min(seconds),
    )


def round_size(run_round: Callable[[int], float], max_size: int, seconds: float) -> int:
    """The smallest size of a round that takes long enough to be timed; what is run for it warms up, too.

    Args:
        run_round: runs a round of a size, and gives its seconds.
        max_size: the largest size that makes sense.
        seconds: about how long all rounds together may take.
    """
    # The first call pays for what is paid once: loading kernels, filling caches, starting threads.
    run_round(1)
    size = 1
    while run_round(size) < seconds / _ROUND_SHARE and size < max_size:
        size = min(max_size, 2 * size)
    return size


def time_rounds(run_round: Callable[[], float], seconds: float) -> list[float]:
    """Seconds of each round; rounds are taken until they add up to `seconds`, and at least three."""
    round_s: list[float] = []
    while len(round_s) < _MIN_ROUNDS or sum(round_s) < seconds:
        round_s.append(run_round())
    return round_s


def within_memory(config_name: str) -> AbstractContextManager[None]:
    """Work whose batch may be too large for the device: a refusal then names the key to lower, not a line of torch."""
    return device_memory.refuse_out_of_memory(
        config_name, "batch_size", "a larger one", "Lower it; for a student, or raise accumulate"
    )
