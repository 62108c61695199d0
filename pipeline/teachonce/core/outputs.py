"""A stage's output: a folder that is replaced as a whole, and only where nothing else is lost with it."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import disk_errors, errors, files, locks

_MARK_BYTES = 1 << 26
_LOCK = ".lock"
_LONGEST_SUFFIX = f"{_LOCK}{files.PARTIAL}"
"""The longest that the name of an output gets while it is made."""


@dataclass(frozen=True, slots=True)
class FolderKind:
    """What a stage leaves, by which its folder is known again: a store may hold no other file, so nothing marks it."""

    name: str
    """What it is in words, for a message."""
    mark: str
    """File that is always there, relative to the folder."""
    text: bytes
    """Bytes that stand somewhere in the file."""
    others: re.Pattern[str]
    """Names of all other files there may be, relative to the folder."""


@dataclass(frozen=True, slots=True)
class Output:
    """A folder that a stage makes."""

    path: Path
    """Where the folder will be."""
    kind: FolderKind
    """How an earlier one is known, which may be replaced."""
    inputs: tuple[Path | str | None, ...]
    """What the stage reads; a URL and None are passed over."""
    beside: tuple[Path, ...] = ()
    """Scratch folder and other outputs: they must not be lost either, though this one may lie in them."""
    option: str = "--out"
    """Option that named the folder, for a message."""

    def require_replaceable(self) -> None:
        """Refuse what must not be replaced; nothing is touched. To be called before anything long.

        Raises:
            ConfigError: something else than a folder of this kind, or an empty one, is there; or it holds an input, or
                lies in one.
            DiskError: there is no right to write there.
        """
        self._require_apart()
        if os.path.lexists(self.path) and (obstacle := self._obstacle()):
            self._refuse(f"new, empty, or {self.kind.name}", obstacle)
        if self.path.is_mount():
            self._refuse("a folder, not a disk's root", self.path)
        require_writable(self.path)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Give an empty sibling folder to fill; on success it replaces the output, on failure it is removed.

        Of two processes that make one output, the second waits for the first. What a killed one left goes.

        Raises:
            ConfigError: as `require_replaceable`, which is asked before and after.
        """
        self.require_replaceable()
        path = _with_name(self.path)
        draft = files.partial_path(path)
        # Beside the folder, which is replaced, and with the suffix that git and DVC pass over.
        lock = locks.Lock(files.partial_path(path.with_name(f"{path.name}{_LOCK}")))
        with disk_errors.explain_write_errors(self.path), lock.hold(self.path):
            try:
                # Under the lock only: without it, what looks like a killed run's rest may be the draft of a live one.
                files.restore_folder(path)
                files.remove(draft)
                draft.mkdir()
                yield draft
                # Asked again: in the hours since, someone may have put something else there.
                self.require_replaceable()
                files.replace_folder(draft, path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
                # Removed while it is held: whoever waits for it finds it gone, and takes a new one (`Lock.take`).
                lock.remove()

    def _require_apart(self) -> None:
        target = real_path(self.path)
        inputs = [path for path in self.inputs if isinstance(path, Path)]
        for path in (*inputs, *self.beside, Path.cwd()):
            if real_path(path).is_relative_to(target):
                self._refuse("a folder that does not hold what the stage needs", f"a folder with {path}")
        for path in inputs:
            if path.is_dir() and target.is_relative_to(real_path(path)):
                self._refuse("a folder outside what the stage reads", f"a folder in {path}")

    def _obstacle(self) -> str | None:
        """What is there that this stage does not make, in words; None where there is nothing."""
        if self.path.is_symlink():
            return f"a link to {self.path.readlink()}"
        if not self.path.is_dir():
            return "a file"
        names = sorted(_entries(self.path))
        # Every file must be of a kind that the stage makes: one of a person's own among them would be lost.
        unlike = [name for name in names if name != self.kind.mark and not self.kind.others.fullmatch(name)]
        if unlike:
            more = f" and {len(unlike) - 1:,} more" if len(unlike) > 1 else ""
            return f"a folder with {unlike[0]}{more}"
        return None if not names or self._is_marked() else f"a folder whose {self.kind.mark} is not of that kind"

    def _is_marked(self) -> bool:
        try:
            with files.open_regular(self.path / self.kind.mark) as stream:
                return self.kind.text in stream.read(_MARK_BYTES)
        except OSError:
            return False

    def _refuse(self, condition: str, value: object) -> None:
        cure = "Name another folder; or, if nobody needs what is there, remove it yourself"
        raise errors.ConfigError.for_value(self.path, self.option, condition, value, cure)


def real_path(path: Path) -> Path:
    """Where a path leads; `Path.resolve` raises where links go round in a circle."""
    return Path(os.path.realpath(path))


def require_writable(path: Path) -> None:
    """Refuse a path that could not be written at the end of all work, with what is made beside it until it is whole.

    Raises:
        DiskError: there is no right to write in its folder, or in the one where that would be made; a file is in the
            way; a name is too long for the disk.
    """
    with disk_errors.explain_write_errors(path):
        parent = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        if not parent.is_dir():
            raise errors.DiskError(path, f"cannot be written, for {parent} is no folder", "Name another place")
        if not os.access(parent, os.W_OK | os.X_OK):
            # As the system would say it at the end of all work, so that one place words the cure.
            code = errno.EROFS if os.statvfs(parent).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(code, os.strerror(code), str(parent))
        _require_short(path, parent)


def _require_short(path: Path, parent: Path) -> None:
    *above, last = path.absolute().relative_to(parent).parts
    names = [*above, last + _LONGEST_SUFFIX]
    if max(len(os.fsencode(name)) for name in names) > os.pathconf(parent, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))


def _with_name(path: Path) -> Path:
    """The same place by a path whose last part is its name; `.` and `..` have no siblings."""
    return path if path.name not in {"", ".."} else real_path(path)


def _entries(folder: Path) -> Iterator[str]:
    """Files and empty folders below a folder, by their names relative to it; links are not followed."""
    for root, folders, names in os.walk(folder):
        # os.walk counts a link to a folder as a folder, and does not enter it: it would be passed over, and lost.
        inside = [name for name in folders if (Path(root) / name).is_symlink()]
        if not folders and not names and Path(root) != folder:
            inside.append("")
        for name in [*inside, *names]:
            yield (Path(root) / name).relative_to(folder).as_posix()
