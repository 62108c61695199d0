"""A sample's key: its name in the data set, as it is stored and as a person writes it."""

import difflib
import itertools
import unicodedata
import urllib.parse
from collections.abc import Collection, Iterable
from pathlib import PurePath

_NOT_UTF8, _CONTROLLED = "is not UTF-8", "holds a control character"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-/")
_CONTROL = frozenset(("Cc", "Zl", "Zp"))  # by Unicode's categories, with its separators of lines and paragraphs
_COMPARED = 20_000
"""Most names among which the nearest is looked for: more would take seconds."""


def name_fault(name: str) -> str | None:
    """What keeps the name of a file, a folder or a tar's member from being one here; None where nothing does.

    Names are stored as text, in JSON, in Zarr and by DVC, and a tar's list of keys is digested line by line.
    """
    kinds = {unicodedata.category(letter) for letter in name}
    if "Cs" in kinds:
        return _NOT_UTF8
    return _CONTROLLED if kinds & _CONTROL else None


def fault_cure(faults: Iterable[str]) -> str:
    """What helps against the faults of files' names."""
    return (
        "Rename it; names in another encoding: convmv -f latin1 -t utf8 -r --notest FOLDER"
        if _NOT_UTF8 in faults
        else "Rename it"
    )


def printable_name(name: str) -> str:
    r"""A name with a fault in letters that can be written anywhere: `caf\xe9`, `a\x0ab`."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(f"\\x{ord(letter):02x}" if unicodedata.category(letter) in _CONTROL else letter for letter in text)


def from_path(path: PurePath) -> str:
    """Key of an image: its path within the source without its ending, escaped.

    Folders stay in the key, as WebDataset allows. Two names never meet in one key except when they differ in their
    ending alone.
    """
    return escape(path.with_suffix("").as_posix())


def escape(name: str) -> str:
    """A plain name as prepare writes it: any byte but A-Z a-z 0-9 _ - / as %XX, dots included.

    WebDataset passes over names like `__this__`, hence a leading _ is written %5F.
    """
    # Byte for byte, so that no two names meet in one key; a dot would end the key, by WebDataset's rule.
    key = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in name.encode())
    return f"%5F{key[1:]}" if key.startswith("_") else key


def unescape(key: str) -> str:
    """What a key that prepare wrote stands for; any other key is given back as it is."""
    name = urllib.parse.unquote(key, errors="surrogateescape")
    # Only what escapes to this very key: a key of others may hold a per cent sign that escapes nothing.
    return name if name_fault(name) is None and escape(name) == key else key


def resolve_key(name: str, keys: Collection[str]) -> str | None:
    """The one of `keys` that is meant: the name itself, else its escaped form; None where there is neither."""
    if name in keys:
        return name
    return key if name_fault(name) is None and (key := escape(name)) in keys else None


def closest_key(name: str, keys: Iterable[str]) -> str | None:
    """The plain name of the key in the same folder that looks most like `name`; None where none does."""
    folder = unescape(name).rpartition("/")[0]
    siblings = (sibling for sibling in map(unescape, keys) if sibling.rpartition("/")[0] == folder)
    close = difflib.get_close_matches(unescape(name), itertools.islice(siblings, _COMPARED), n=1)
    return close[0] if close else None
