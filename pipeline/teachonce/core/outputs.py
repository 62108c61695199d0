"""A stage's output: a folder that is replaced as a whole, and only where nothing else is lost with it."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import errors, files, locks

_MARK_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Kind:
    """What a stage leaves, by which its folder is known again: a store may hold no other file, so nothing marks it."""

    name: str
    """In words."""
    mark: str
    """File that is always there, relative to the folder."""
    text: bytes
    """That the file holds."""
    others: re.Pattern[str]
    """Names of all other files there may be, relative to the folder."""


@dataclass(frozen=True, slots=True)
class Output:
    """A folder that a stage makes."""

    path: Path
    """Where."""
    kind: Kind
    """What will be there."""
    inputs: tuple[Path | str | None, ...]
    """What the stage reads; a URL and None are passed over."""
    beside: tuple[Path, ...] = ()
    """Scratch folder and other outputs: they must not be lost either, though this one may lie in them."""
    option: str = "--out"
    """By which the folder was named."""

    def require_replaceable(self) -> None:
        """Refuse what must not be replaced; nothing is touched. To be called before anything long.

        Raises:
            ConfigError: something else than a folder of this kind, or an empty one, is there; or it holds an input, or
                lies in one.
            DiskError: there is no right to write there.
        """
        self._require_apart()
        if os.path.lexists(self.path) and (got := self._other()):
            self._refuse(f"new, empty, or {self.kind.name}", got)
        if self.path.is_mount():
            self._refuse("a folder, not a disk's root", self.path)
        _require_writable(self.path)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Give an empty sibling folder to fill; on success it replaces the output, on failure it is removed.

        Of two processes that make one output, the second waits for the first. What a killed one left goes.

        Raises:
            ConfigError: as `require_replaceable`, which is asked before and after.
        """
        self.require_replaceable()
        path = _named(self.path)
        draft = files.partial(path)
        lock = locks.Lock(files.partial(path.with_name(f"{path.name}.lock")))
        with files.full_disk(self.path), lock.held(self.path):
            try:
                files.put_back(path)
                files.remove(draft)
                draft.mkdir()
                yield draft
                self.require_replaceable()
                files.replace_folder(draft, path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
                lock.remove()

    def _require_apart(self) -> None:
        out = self.path.resolve()
        inputs = [given for given in self.inputs if isinstance(given, Path)]
        for given in (*inputs, *self.beside, Path.cwd()):
            if given.resolve().is_relative_to(out):
                self._refuse("a folder that does not hold what the stage needs", f"a folder with {given}")
        for given in inputs:
            if given.is_dir() and out.is_relative_to(given.resolve()):
                self._refuse("a folder outside what the stage reads", f"a folder in {given}")

    def _other(self) -> str | None:
        """What is there that this stage does not make, in words; None where there is nothing."""
        if self.path.is_symlink():
            return f"a link to {self.path.readlink()}"
        if not self.path.is_dir():
            return "a file"
        names = sorted(_entries(self.path))
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

    def _refuse(self, condition: str, got: object) -> None:
        cure = "Name another folder; or, if nobody needs what is there, remove it yourself"
        raise errors.ConfigError(errors.refusal(self.path, self.option, condition, got, cure))


def require_files(*paths: Path) -> None:
    """Refuse, before anything long, files that could not be written at its end.

    Raises:
        ConfigError: a folder is there.
        DiskError: there is no right to write there.
    """
    for path in paths:
        if path.is_dir():
            raise errors.ConfigError(errors.refusal(path, "it", "a file", "a folder", "Name another place"))
        _require_writable(path)


def _require_writable(path: Path) -> None:
    """Refuse where there is no right to write in the folder of a path, or in the one where it would be made."""
    with files.full_disk(path):
        parent = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        if not parent.is_dir():
            raise errors.DiskError(f"{path}: cannot be written, for {parent} is no folder. Name another place")
        if not os.access(parent, os.W_OK | os.X_OK):
            code = errno.EROFS if os.statvfs(parent).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(code, os.strerror(code), str(parent))


def _named(path: Path) -> Path:
    """The same place by a path whose last part is its name; `.` and `..` have no siblings."""
    return path if path.name not in {"", ".."} else path.resolve()


def _entries(folder: Path) -> Iterator[str]:
    """Files and empty folders below a folder, by their names relative to it; links are not followed."""
    for root, folders, names in os.walk(folder):
        inside = [name for name in folders if (Path(root) / name).is_symlink()]
        if not folders and not names and Path(root) != folder:
            inside.append("")
        for name in [*inside, *names]:
            yield (Path(root) / name).relative_to(folder).as_posix()
