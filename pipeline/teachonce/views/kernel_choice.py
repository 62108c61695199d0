"""What computes a view: the kernels, compiled where a compiler is at hand, else the same integers by NumPy.

They are compiled when the first view is rendered, so that what renders nothing neither imports a compiler nor waits.
"""

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields

from teachonce.core import progress
from teachonce.views import kernels, kernels_numpy

_LOG = logging.getLogger(__name__)
_LOCK = threading.Lock()
_COMPILING = "compiling what renders views (ten seconds, once)"


@dataclass(frozen=True, slots=True)
class Kernels:
    """The functions of `kernels_numpy` by name, whoever computes them."""

    resize: Callable[..., None]
    warp: Callable[..., None]
    slide_rows: Callable[..., None]
    slide_columns: Callable[..., None]
    count_levels: Callable[..., kernels.Longs]
    sum_grey: Callable[..., int]
    apply_tables: Callable[..., None]
    saturate: Callable[..., None]
    sharpen: Callable[..., None]
    mix: Callable[..., None]


PRELOADED = f"{__package__}.preloaded_kernels"
"""Module for a fork server to import: what it forks has the kernels from the start."""

_CHOSEN: list[Kernels] = []
"""The kernels of this process, once they are chosen."""


def chosen_kernels() -> Kernels:
    """The kernels of this process, compiled by the first call."""
    if not _CHOSEN:
        # Threads that render first at once would each compile.
        with _LOCK:
            if not _CHOSEN:
                _CHOSEN.append(compiled_kernels() or numpy_kernels())
    return _CHOSEN[0]


def numpy_kernels() -> Kernels:
    """Those that need no compiler."""
    return Kernels(**{field.name: getattr(kernels_numpy, field.name) for field in fields(Kernels)})


def compiled_kernels() -> Kernels | None:
    """Those that numba compiles; None, with a warning, where it cannot be used."""
    if sys.byteorder != "little":
        _warn_of("bytes of a word stand in the other order here than the kernels take them")
        return None
    try:
        from teachonce.views import kernel_compiler  # noqa: PLC0415 - takes half a second, and may be missing
    except (ImportError, OSError) as error:  # OSError: of its library, built for another system
        _warn_of(str(error))
        return None
    # Loading what was compiled before takes half a second, and is not to be called compiling on a busy machine.
    with progress.status_if_slow(_COMPILING, after_s=2.0):
        return Kernels(**kernel_compiler.compile_kernels())


def _warn_of(reason: str) -> None:
    _LOG.warning("rendering without a compiler, which is slower by an order of magnitude: %s", reason)
