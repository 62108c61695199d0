"""What Pillow and its C libraries say beside an error: nothing, as a refusal is one line, and sound pixels are enough.

Three ways out: Python's warnings, Python's loggers, and libtiff, which writes on file descriptor 2 past both.
"""

import ctypes
import functools
import logging
import re
import warnings

from PIL import _imaging

_PILLOW = re.compile(r"PIL\.")
_TIFF_HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")


def silence() -> None:
    """Silence all three, for the whole process; costs nothing after the first call.

    Done once and left: `catch_warnings` puts the whole process's filters back, so that two threads inside it leave
    every later warning of the process ignored; descriptor 2 cannot be led elsewhere for one thread alone.
    """
    # Looked at each time: whoever resets the filters would let the warnings through again.
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[:3] != ("ignore", None, Warning) or first[3] != _PILLOW:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)
    _silence_loggers_and_libtiff()


@functools.cache
def _silence_loggers_and_libtiff() -> None:
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    # Symbols are looked for in what the module links to, too: the libtiff that Pillow itself uses, whatever its name.
    library = ctypes.CDLL(_imaging.__file__)
    for name in _TIFF_HANDLERS:
        # A Pillow without libtiff, or with one whose symbols are hidden, has nothing to silence or no way to do it.
        if (install := getattr(library, name, None)) is not None:
            install.argtypes, install.restype = [ctypes.c_void_p], ctypes.c_void_p
            install(None)
