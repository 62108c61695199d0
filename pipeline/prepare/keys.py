"""Sample keys from file names."""

import os
from pathlib import PurePath

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-/")


def from_path(path: PurePath) -> str:
    """Key of an image: its path within the source without its ending.

    Folders stay in the key, as WebDataset allows. Any byte but A-Z a-z 0-9 _ - / is written %XX, dots included, so that
    two names never meet in one key except when they differ in their ending alone. WebDataset passes over names
    like `__this__`, hence a leading _ is written %5F.
    """
    name = os.fsencode(path.with_suffix("").as_posix())
    key = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in name)
    return f"%5F{key[1:]}" if key.startswith("_") else key
