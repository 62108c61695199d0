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
_USES = "uses"
_OURS = re.compile(rf"((basis-)?[0-9a-f]{{32}}|basis-[0-9a-f]{{32}}\.safetensors)((\.old)?{re.escape(files.PARTIAL)})?")
"""Bases are folders; they were files once."""
_MOST_BYTES = 1 << 30  # of a note: the names of as many units as a store may have
_REFUSAL = sealed_files.Refusal(
    errors.ConfigError,
    "It must say what is in use. Make it again: dvc repro -f cache; or remove it, if nobody needs that run's units",
)
_ANEW = sealed_files.Refusal(errors.ConfigError, "It is written anew")


class _Note(config.Model):
    """What a run writes down, under a digest: a name that was lost would cost its unit."""

    out: str
    """The run's output."""
    folder: str
    """The run's working folder."""
    names: tuple[str, ...]
    """Units and bases that it looks up."""


@dataclass(frozen=True, slots=True)
class RemovalCounts:
    """What became of a scratch folder."""

    removed: int
    """Units and bases that no run uses."""
    kept: int
    """Those that one does use."""
    freed_bytes: int
    """Of what was removed and lay here alone."""
    linked_bytes: int
    """Of what was removed here, but is linked from a store or from DVC's cache, and so takes room as before."""


def record_uses(scratch: Path, out: Path, names: Iterable[str], *, more: bool = False) -> None:
    """Write down what the run that makes `out` will look up in the scratch folder.

    Args:
        scratch: folder of finished units.
        out: the run's output; what an earlier run for the same one wrote down is replaced.
        names: of units and bases.
        more: add to it instead: that run may not have ended.
    """
    path = scratch / _USES / f"{hashing.json_digest(str(out.resolve()))}.json"
    before = _before(path) if more else ()
    if path.is_dir():
        files.remove(path)
    note = {"out": str(out.resolve()), "folder": str(Path.cwd()), "names": sorted({*before, *names})}
    sealed_files.write_with_digest(path, note)


def _before(path: Path) -> tuple[str, ...]:
    """What is written down already; what is damaged stands in no run's way."""
    try:
        return _note(path, _ANEW).names if os.path.lexists(path) else ()
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
    notes = sorted((scratch / _USES).glob("*.json"))
    if not notes:
        raise errors.ConfigError(
            scratch, "says nothing of what is in use", "Run the cache stage first: dvc repro cache"
        )
    lock = locks.folder_lock(scratch)
    if not lock.take():
        raise errors.LockedError(scratch, f"is in use by process {lock.owner()}", "Wait until that ends")
    with contextlib.closing(lock):
        read = {path: _note(path) for path in notes}
        gone = [path for path in notes if _is_gone(read[path])]
        used = set[str]().union(*(read[path].names for path in notes if path not in gone))
        ours = [path for path in sorted(scratch.iterdir()) if _OURS.fullmatch(path.name)]
        unused = [path for path in ours if path.name not in used]
        sizes = [_sizes(path) for path in unused]
        for path in (*gone, *unused) if not dry_run else ():
            files.remove(path)
    freed, linked = (sum(size[at] for size in sizes) for at in (0, 1))
    return RemovalCounts(len(unused), len(ours) - len(unused), freed, linked)


def _is_gone(note: _Note) -> bool:
    """Whether a run worked in a folder that is no more: DVC removes those of its queue when their runs have ended."""
    return not Path(note.folder).is_dir()


def _note(path: Path, refusal: sealed_files.Refusal = _REFUSAL) -> _Note:
    return config.parse(sealed_files.read_with_digest(path, refusal, _MOST_BYTES), _Note, str(path))


def _sizes(path: Path) -> tuple[int, int]:
    """Bytes of files that lie here alone, and of those linked from elsewhere too."""
    stats = [file.stat() for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    alone = sum(stat.st_size for stat in stats if stat.st_nlink == 1)
    return alone, sum(stat.st_size for stat in stats) - alone
