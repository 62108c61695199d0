"""The code that decides a unit's bytes, as one digest: part of a unit's name.

A module that is forgotten costs trust; one that is needless costs the units of a release that changed it.
"""

from pathlib import Path

from pipeline.base import closure

COMPUTES = "pipeline/teacher/produce.py"
"""The module that computes a unit, relative to the root."""

_READERS = "reads stores, which are made of units"
EXEMPT = {
    "pipeline/base/config.py": "reads settings and records; those that decide a byte are in the name by value",
    "pipeline/base/device_memory.py": "words a refusal",
    "pipeline/base/errors.py": "words refusals",
    "pipeline/base/fetch.py": "fetches files, whose sha256 is compared",
    "pipeline/base/files.py": "puts bytes on a disk, where their sha256 is compared",
    "pipeline/base/locks.py": "waits for other processes",
    "pipeline/base/memory.py": "tells the allocator what to keep",
    "pipeline/base/places.py": "fetches files, whose sha256 is compared",
    "pipeline/base/plain_data.py": "reads settings; those that decide a byte are in the name by value",
    "pipeline/base/problems.py": "words refusals",
    "pipeline/base/record.py": "names versions, which are compared by value",
    "pipeline/base/seeding.py": "begins a training; the weights it ends with are in the name by their sha256",
    "pipeline/base/sealed.py": "compares files with their digests",
    "pipeline/base/spelling.py": "words refusals",
    "pipeline/base/terminal.py": "shows text",
    "pipeline/base/waiting.py": "says what is waited for",
    "pipeline/cache/accept.py": _READERS,
    "pipeline/cache/chunk.py": _READERS,
    "pipeline/cache/form.py": _READERS,
    "pipeline/cache/read.py": _READERS,
    "pipeline/cache/records.py": _READERS,
    "pipeline/shards/effort.py": "refuses images that cost too much, and changes none",
    "pipeline/shards/keys.py": "judges and shows names, and changes none",
    "pipeline/teacher/config.py": "declares settings; those that decide a byte are in the name by value",
    "pipeline/teacher/renderers.py": "runs `feed.render` elsewhere",
    "pipeline/teacher/rendering.py": "chooses who renders; `feed.render` makes the pixels",
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
