"""Which finished units in the scratch folder a run has use for, and the removal of the others.

Before it computes, a run writes down the names of all that it will look up. What none has written down belongs to
earlier settings, whose stores need it no more.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import config, errors, files, hashing, locks, sealed_files

_LOG = logging.getLogger(__name__)
_NOTES_FOLDER = "uses"
_UNIT_OR_BASIS = re.compile(
    rf"((basis-)?[0-9a-f]{{32}}|basis-[0-9a-f]{{32}}\.safetensors)((\.old)?{re.escape(files.PARTIAL)})?"
)
"""Bases are folders; they were files once."""
_MOST_BYTES = 1 << 30  # of a note: the names of as many units as a store may have
_REFUSAL = sealed_files.Refusal(
    errors.ConfigError,
    "It must say what is in use. Make it again: dvc repro -f cache; or remove it, if nobody needs that run's units",
)
_REWRITTEN = sealed_files.Refusal(errors.ConfigError, "It is written anew")


class _Note(config.Model):
    """What a run writes down, under a digest: a name that is lost from it would cost a unit."""

    out: str
    """Absolute path of the run's output."""
    folder: str
    """The run's working folder, by whose absence a note is known to be stale."""
    names: tuple[str, ...]
    """Units and bases that it looks up."""


@dataclass(frozen=True, slots=True)
class RemovalCounts:
    """What a prune removed and left."""

    removed: int
    """Count of units and bases that no run uses."""
    in_use: int
    """Count of those that a run does use."""
    freed_bytes: int
    """Bytes of what was removed and lay here alone."""
    linked_bytes: int
    """Bytes of what was removed here, but is linked from a store or from DVC's cache, and so takes room as before."""


def record_uses(scratch: Path, out: Path, names: Iterable[str], *, extend: bool = False) -> None:
    """Write down what the run that makes `out` will look up in the scratch folder.

    Args:
        scratch: folder of finished units.
        out: the run's output; what an earlier run for the same one wrote down is replaced.
        names: folder names of units and bases.
        extend: whether to add to the earlier note: the run that wrote it may not have ended.
    """
    # One note an output, named by its path: two outputs that share a scratch folder do not overwrite each other's
    # notes.
    path = scratch / _NOTES_FOLDER / f"{hashing.json_digest(str(out.resolve()))}.json"
    earlier_names = _noted_names(path) if extend else ()
    if path.is_dir():
        files.remove(path)
    note = {"out": str(out.resolve()), "folder": str(Path.cwd()), "names": sorted({*earlier_names, *names})}
    sealed_files.write_with_digest(path, note)


def _noted_names(path: Path) -> tuple[str, ...]:
    """Names in an earlier note; of a damaged one none, with a warning: it must not keep a run from starting."""
    try:
        return _read_note(path, _REWRITTEN).names if os.path.lexists(path) else ()
    except errors.ConfigError as error:
        _LOG.warning("%s", error)
        return ()


def remove_unused(scratch: Path, *, dry_run: bool = False) -> RemovalCounts:
    """Remove what no run uses. What a killed run left, the same command will use, and it stays.

    Args:
        scratch: folder of finished units.
        dry_run: only count.

    Raises:
        ConfigError: no run has written down what it uses.
        LockedError: a run is at work in the folder.
    """
    notes = sorted((scratch / _NOTES_FOLDER).glob("*.json"))
    if not notes:
        raise errors.ConfigError(
            scratch, "says nothing of what is in use", "Run the cache stage first: dvc repro cache"
        )
    # A run holds this lock while it computes: a unit that is being written bears no finished name yet, and would pass
    # for a rest of a killed run.
    lock = locks.folder_lock(scratch)
    if not lock.take():
        raise errors.LockedError(scratch, f"is in use by process {lock.owner()}", "Wait until that ends")
    with contextlib.closing(lock):
        # All notes are read before anything is removed: a damaged one ends this here, since what it named is unknown.
        note_by_path = {path: _read_note(path) for path in notes}
        stale_notes = [path for path in notes if _is_stale(note_by_path[path])]
        used_names = set[str]().union(*(note_by_path[path].names for path in notes if path not in stale_notes))
        # Known by the shape of their names: a file that someone put here by hand is not this program's to remove.
        entries = [path for path in sorted(scratch.iterdir()) if _UNIT_OR_BASIS.fullmatch(path.name)]
        unused = [path for path in entries if path.name not in used_names]
        sizes = [_bytes_alone_and_linked(path) for path in unused]
        for path in (*stale_notes, *unused) if not dry_run else ():
            files.remove(path)
    freed, linked = (sum(size[column] for size in sizes) for column in (0, 1))
    return RemovalCounts(len(unused), len(entries) - len(unused), freed, linked)


def _is_stale(note: _Note) -> bool:
    """Whether a run worked in a folder that is no more: DVC removes those of its queue when their runs have ended."""
    return not Path(note.folder).is_dir()


def _read_note(path: Path, refusal: sealed_files.Refusal = _REFUSAL) -> _Note:
    return config.parse(sealed_files.read_with_digest(path, refusal, _MOST_BYTES), _Note, str(path))


def _bytes_alone_and_linked(path: Path) -> tuple[int, int]:
    """Bytes of files that lie here alone, and of those that are hard-linked from elsewhere too."""
    stats = [file.stat() for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    alone = sum(stat.st_size for stat in stats if stat.st_nlink == 1)
    return alone, sum(stat.st_size for stat in stats) - alone
