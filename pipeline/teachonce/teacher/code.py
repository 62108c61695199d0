"""The code that decides a unit's bytes, as one digest: part of a unit's name.

A module that is forgotten costs trust; one that is needless costs the units of a release that changed it.
"""

from pathlib import Path

from teachonce.base import closure

COMPUTES = "teachonce/teacher/produce.py"
"""The module that computes a unit, relative to the root."""

_READERS = "reads stores, which are made of units"
EXEMPT = {
    "teachonce/base/config.py": "reads settings and records; those that decide a byte are in the name by value",
    "teachonce/base/device_memory.py": "words a refusal",
    "teachonce/base/errors.py": "words refusals",
    "teachonce/base/fetch.py": "fetches files, whose sha256 is compared",
    "teachonce/base/files.py": "puts bytes on a disk, where their sha256 is compared",
    "teachonce/base/locks.py": "waits for other processes",
    "teachonce/base/memory.py": "tells the allocator what to keep",
    "teachonce/base/places.py": "fetches files, whose sha256 is compared",
    "teachonce/base/plain_data.py": "reads settings; those that decide a byte are in the name by value",
    "teachonce/base/problems.py": "words refusals",
    "teachonce/base/record.py": "names versions, which are compared by value",
    "teachonce/base/seeding.py": "begins a training; the weights it ends with are in the name by their sha256",
    "teachonce/base/sealed.py": "compares files with their digests",
    "teachonce/base/spelling.py": "words refusals",
    "teachonce/base/terminal.py": "shows text",
    "teachonce/base/waiting.py": "says what is waited for",
    "teachonce/cache/accept.py": _READERS,
    "teachonce/cache/chunk.py": _READERS,
    "teachonce/cache/form.py": _READERS,
    "teachonce/cache/read.py": _READERS,
    "teachonce/cache/records.py": _READERS,
    "teachonce/shards/effort.py": "refuses images that cost too much, and changes none",
    "teachonce/shards/keys.py": "judges and shows names, and changes none",
    "teachonce/teacher/config.py": "declares settings; those that decide a byte are in the name by value",
    "teachonce/teacher/renderers.py": "runs `feed.render` elsewhere",
    "teachonce/teacher/rendering.py": "chooses who renders; `feed.render` makes the pixels",
}
"""Modules that decide no byte of a unit, each with the reason.

Not here, since computing a unit does not import them: the teacher's training, the executors, progress bars.
"""


def digest(root: Path = closure.ROOT) -> str:
    """BLAKE2b-128 of the statements that decide a unit's bytes, as 32 hex digits.

    Args:
        root: folder of the packages.
    """
    return closure.digest(COMPUTES, frozenset(EXEMPT), root)
