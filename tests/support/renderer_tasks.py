"""Tasks for rendering processes, each of which imports this module anew: it costs them no import of torch."""

import os
import sys
from pathlib import Path

import numpy as np


def large_result(seed: int) -> np.ndarray:
    """More than a pipe takes at once: whoever is killed is most often killed within a result."""
    return np.full(1 << 22, seed, dtype=np.uint8)


def die(*_: object) -> None:
    """End the process without a word."""
    os._exit(1)


def note_kind(out: Path) -> None:
    """Write which kind of executor this process gets where it asks for processes."""
    from teachonce.cache import renderer_choice

    with renderer_choice.start_pool("processes", 1) as pool:
        out.write_text(type(pool).__name__)


def has_kernels() -> bool:
    """Whether this process was forked with compiled kernels."""
    from teachonce.views import kernel_choice

    return bool(kernel_choice._CHOSEN)


def has_torch() -> bool:
    """Whether this process imported torch, which rendering has no use for."""
    return "torch" in sys.modules
