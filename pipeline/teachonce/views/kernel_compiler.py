"""The kernels, compiled by numba for this CPU; the machine code is kept on disk where it can be.

Imports numba, so that only `kernel_choice` imports this; an ImportError where it compiles nothing.
"""

import hashlib
import logging
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from teachonce.views import kernels, level_kernels, resize_kernels, warp_kernels

_CONFIG: Any = numba.config  # made from the environment, so that a type checker knows no name of it
if _CONFIG.DISABLE_JIT:
    # Its functions would be the plain loops: minutes a view.
    raise ImportError("numba is told to compile nothing (NUMBA_DISABLE_JIT)")

_LOG = logging.getLogger(__name__)

_MODULES = (kernels, resize_kernels, warp_kernels, level_kernels)

_IMAGE = numba.types.Array(numba.uint8, 3, "C", readonly=True)
_VIEW = numba.types.Array(numba.uint8, 3, "C")
_TABLES = numba.types.Array(numba.uint8, 2, "C")
_PHASES = numba.types.Array(numba.int16, 2, "C")
_COLOUR = numba.types.UniTuple(numba.int64, 3)
_MOTION = (_VIEW, numba.types.UniTuple(numba.int64, 2), _PHASES, _COLOUR, _VIEW)

_ARGUMENTS = {
    "resize": (_IMAGE, numba.types.UniTuple(numba.int64, 4), numba.types.UniTuple(numba.boolean, 2), _VIEW),
    "warp": (_VIEW, numba.types.UniTuple(numba.int64, 6), _PHASES, _COLOUR, _VIEW),
    "slide_rows": _MOTION,
    "slide_columns": _MOTION,
    "count_levels": (_VIEW,),
    "sum_grey": (_VIEW,),
    "apply_tables": (_VIEW, _TABLES),
    "saturate": (_VIEW, numba.int64),
    "sharpen": (_VIEW, numba.int64, _VIEW),
    "mix": (_VIEW, _IMAGE, numba.int64),
}
"""Types of what is called from outside. Given in advance, so that all is compiled or loaded before the first view."""

# Divisors are never 0: the check would cost more than the division. Threads render beside each other without the lock.
_OPTIONS = {"nogil": True, "error_model": "numpy"}


def compile_kernels() -> dict[str, Callable[..., Any]]:
    """The functions that are called from outside, by name."""
    try:
        return _load_or_compile()
    except Exception as error:  # numba raises several where it cannot write; a bug in a kernel raises again below
        _LOG.warning("the compiled renderer cannot be kept on disk, so that every process compiles it: %s", error)
        return _compile(None)


def _load_or_compile() -> dict[str, Callable[..., Any]]:
    source = _source_of_all()
    try:
        return _compile(source)
    except Exception:  # whatever reading raises of what a power cut has left half written
        for stored in source.parent.glob(f"__pycache__/{source.stem}.*"):
            stored.unlink(missing_ok=True)
        return _compile(source)


def _source_of_all() -> Path:
    """A file in the user's cache, by which machine code is kept: one for all checkouts with these kernels.

    numba knows stale code by the time and size of a function's file. A helper may change without either, in another
    file or where files are restored with their times, and a run in a workspace of DVC has files of its own, for which
    it would compile again. So functions are said to be of this file, whose name has the digest of all their sources.
    """
    # This file too: its options decide what a kernel computes.
    files = [__file__, *(str(module.__file__) for module in _MODULES)]
    source = b"".join(Path(file).read_bytes() for file in files)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "teachonce"
    path = folder / f"kernels-{hashlib.sha256(source).hexdigest()[:16]}.py"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.urandom(8).hex()}")
        draft.write_bytes(source)
        # One time for all who write it: to numba it is then one file.
        os.utime(draft, (0, 0))
        draft.replace(path)
    return path


def _compile(source: Path | None) -> dict[str, Callable[..., Any]]:
    namespace: dict[str, Any] = {}
    for module in _MODULES:
        namespace |= vars(module)
    functions = {name: value for name, value in namespace.items() if isinstance(value, types.FunctionType)}
    copies = {}
    jit: Any = numba.njit  # whose types know not all of its options
    for name, function in functions.items():
        # A copy with globals of its own, in which helpers are compiled ones; the module's stay plain Python.
        code = function.__code__.replace(co_filename=str(source)) if source else function.__code__
        copies[name] = types.FunctionType(code, namespace, name)
        namespace[name] = jit(**_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)(copies[name])
    return {
        name: jit(arguments, **_OPTIONS, cache=bool(source))(copies[name]) for name, arguments in _ARGUMENTS.items()
    }
