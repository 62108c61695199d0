"""A command's outputs of one file each: what may be replaced by them, and what else must not be written to.

All that a command line names and the command does not make, it reads: a new option is guarded without a word here.
"""

import argparse
import itertools
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import disk_errors, errors, files, outputs

_MAX_BYTES = 1 << 28
_ELSEWHERE = "Name another place"
_CURE = "Name another file; or, if nobody needs what is there, remove it yourself"
_DVC_OBJECT = re.compile(r"(.*/)?files/md5/[0-9a-f]{2}/[0-9a-f]{30}")
"""A file of DVC's cache. Where that lies on another disk, a finished output is a link to it, and is replaced."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a command leaves in a file, by which an earlier one is known again."""

    name: str
    """What it is in words, for a message."""
    keys: tuple[str, ...] = ()
    """Keys that its JSON object always has; those of an object within it behind a dot."""
    text: bytes | None = None
    """All that the file holds, where that is always the same."""

    def describes(self, path: Path) -> bool:
        """Whether a regular file is one of them, or empty, so that nothing is lost with it."""
        try:
            data = files.read_bytes(path, _MAX_BYTES)
            if self.text is not None or not data:
                return data in {b"", self.text}
            content = files.parse_json(data)
        except (OSError, ValueError):
            return False
        # By keys that it always has, not by its name: an older release's file is known too, and a stranger's is not.
        return all(_has(content, key.split(".")) for key in self.keys)


COST = FileKind("an earlier record of cost", ("wall_s", "cpus"))


@dataclass(frozen=True, slots=True)
class _Place:
    """A path of the command line that will be written to."""

    option: str
    path: Path

    @property
    def real(self) -> Path:
        """Where it leads, links followed."""
        return outputs.real_path(self.path)

    def refuse(self, condition: str, value: object, cure: str) -> None:
        """Raise a ConfigError that names path and option; arguments as those of `TeachonceError.for_value`."""
        raise errors.ConfigError.for_value(self.path, self.option, condition, value, cure)

    def require_open(self) -> None:
        """Refuse a descriptor that is closed, and a device that cannot be opened."""
        try:
            with files.open_stream(self.path):
                pass
        except OSError as error:
            condition = "a device or a descriptor that is open"
            raise errors.ConfigError.for_value(self.path, self.option, condition, error.strerror, _ELSEWHERE) from error

    def require_outside(self, inputs: Iterable[Path]) -> None:
        """Refuse a place that is read, or lies in a folder that is."""
        for path in inputs:
            if self.real.is_relative_to(outputs.real_path(path)):
                where = "what is read" if self.real == outputs.real_path(path) else f"a place in {path}"
                self.refuse("outside what the command reads", where, _ELSEWHERE)

    def require_replaceable(self, kind: FileKind) -> None:
        """Refuse what is there, unless it is an earlier file of the kind."""
        if self.path.name in {"", ".."} or self.real.is_dir():
            self.refuse("a file", "a folder", _ELSEWHERE)
        if os.path.lexists(self.path) and (obstacle := self._unlike_kind(kind)):
            self.refuse(f"new, empty, or {kind.name}", obstacle, _CURE)
        outputs.require_writable(self.path)

    def _unlike_kind(self, kind: FileKind) -> str | None:
        if self.path.is_symlink():
            if not _DVC_OBJECT.fullmatch(str(self.path.readlink())):
                return f"a link to {self.path.readlink()}"
        elif not stat.S_ISREG(self.path.lstat().st_mode):
            return "a pipe, a socket or a disk"
        return None if kind.describes(self.path) else "a file of another kind"


def require_overwritable(
    args: argparse.Namespace,
    kinds: Mapping[str, FileKind],
    *,
    folders: Sequence[str] = (),
    also_read: Iterable[Path | None] = (),
    parts: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse, before anything long, files and a scratch folder that must not be written to; nothing is touched.

    A device, and a descriptor that is open already (`/dev/stdout`), are written to, not replaced: nothing is asked of
    them but to be open.

    Args:
        args: the parsed command line. What it names beside the outputs and `scratch` is read.
        kinds: what is written, by the name of the argument.
        folders: arguments that name the folders that are made; `outputs.Output` guards these themselves.
        also_read: what is read and not named there.
        parts: of folders that are not read whole, by argument: names in them that are.

    Raises:
        ConfigError: something else than an earlier file of its kind is there, it is read or lies in what is read, two
            outputs overlap, or a descriptor is closed.
        DiskError: there is no right to write there.
    """
    paths = {name: value for name, value in vars(args).items() if isinstance(value, Path)}
    places = {name: _Place(f"--{name.replace('_', '-')}", path) for name, path in paths.items()}
    written = {name: places[name] for name in kinds if name in places}
    # A stream may take two outputs, and loses nothing by it: it is asked for no more than to be open.
    for name in [name for name in written if files.is_stream(paths[name])]:
        written.pop(name).require_open()
    inputs = [path for path in also_read if path is not None]
    # Whatever is left is taken for an input: a new option that is forgotten here is guarded too much, not too little.
    for name in paths.keys() - kinds.keys() - {*folders, "scratch"}:
        inputs += [paths[name] / part for part in (parts or {}).get(name, ("",))]
    for name, place in written.items():
        with disk_errors.explain_write_errors(place.path):
            place.require_outside(inputs)
            place.require_replaceable(kinds[name])
    if scratch := places.get("scratch"):
        _require_scratch(scratch, inputs)
    _require_apart([*written.values()], [places[name] for name in (*folders, "scratch") if name in places])


def _require_scratch(scratch: _Place, inputs: Iterable[Path]) -> None:
    scratch.require_outside(inputs)
    if os.path.lexists(scratch.path) and not scratch.real.is_dir():
        scratch.refuse("a folder", "something else", _ELSEWHERE)
    outputs.require_writable(scratch.path / "lock")


def _require_apart(written: Sequence[_Place], folders: Sequence[_Place]) -> None:
    for pair in itertools.chain(itertools.combinations(written, 2), itertools.product(written, folders)):
        # Either may lie in the other, and would be lost when that one is replaced.
        for inner, outer in (pair, pair[::-1]):
            if inner.real.is_relative_to(outer.real):
                outer.refuse(f"apart from {inner.option}", inner.path, _ELSEWHERE)


def _has(content: object, key: Sequence[str]) -> bool:
    for name in key:
        if not isinstance(content, dict) or name not in content:
            return False
        content = content[name]
    return True
