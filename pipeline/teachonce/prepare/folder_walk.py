"""Files and folders below a source: each once, in order, and none left out in silence."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from teachonce.core import errors
from teachonce.prepare import image_source
from teachonce.shards import decode, sample_keys

_BY_PRODUCTS = frozenset(
    ("@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found", "system volume information", "thumbs.db")
)
"""What file managers and storage systems leave, in lower case; thumbnails of the images lie in the first."""


class FolderWalker:
    """What was met below one source."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.passed: set[Path] = set()
        """Folders that are none of the data's."""
        self._places: dict[tuple[int, int], Path] = {}

    def folders(self, folder: Path) -> list[Path]:
        """Its folders, sorted by name; those that other programs leave, and hidden ones, are counted instead.

        Raises:
            DataError: it cannot be listed, or a name cannot be stored as text.
        """
        return self._listed(folder)[0]

    def files(self, folder: Path) -> Iterator[Path]:
        """All that is below it and no folder, each folder's files sorted by name.

        Raises:
            DataError: a folder cannot be listed, is met a second time by another path, or a name cannot be stored as
                text. A link to a folder that holds it is a loop: passed over and counted, as nothing is lost by it.
        """
        # A link to what holds the source is a loop too.
        for above in folder.absolute().parents:
            self._places.setdefault(_place(above), above)
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            if self._enter(here):
                folders, files = self._listed(here)
                yield from files
                waiting += reversed(folders)

    def _listed(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Folders and all else of one folder, sorted by name."""
        try:
            with os.scandir(folder) as entries:
                found = sorted((entry.name, _is_folder(entry)) for entry in entries)
        except OSError as error:
            raise _unlisted(folder, error) from error
        taken = []
        for name, is_folder in found:
            if is_folder and (name.startswith(".") or name.lower() in _BY_PRODUCTS):
                self.passed.add(folder / name)
            else:
                taken.append((name, is_folder))
        self._require_text(folder, [name for name, _ in taken])
        folders = [folder / name for name, is_folder in taken if is_folder]
        return folders, [folder / name for name, is_folder in taken if not is_folder]

    def _require_text(self, folder: Path, found: list[str]) -> None:
        faults = {name: fault for name in found if (fault := sample_keys.name_fault(name))}
        if faults:
            names = image_source.summarise_problems(
                [f"{sample_keys.printable_name(name)} {fault}" for name, fault in faults.items()]
            )
            what = f"{len(faults)} names cannot be stored as text: {names}"
            raise errors.DataError(
                sample_keys.printable_name(str(folder)), what, sample_keys.fault_cure(faults.values())
            )

    def _enter(self, folder: Path) -> bool:
        # Not resolved paths: a folder that is mounted twice has two of them.
        place, here = _place(folder), folder.absolute()
        other = self._places.setdefault(place, here)
        if other == here or place[1] == 0:
            return True
        if here.is_relative_to(other):
            self.passed.add(folder)
            return False
        root = self.root.absolute()
        raise errors.DataError(
            self.root,
            f"{other.relative_to(root)} and {here.relative_to(root)} are one folder by two names, "
            "so that each of its images would count twice",
            "Remove one of the links",
        )


def _place(folder: Path) -> tuple[int, int]:
    try:
        state = folder.stat()
    except OSError as error:
        raise _unlisted(folder, error) from error
    return state.st_dev, state.st_ino


def _unlisted(folder: Path, error: OSError) -> errors.DataError:
    cure = "Correct source in params.yaml, or make it readable"
    return errors.DataError(sample_keys.printable_name(str(folder)), f"cannot be listed ({error.strerror})", cure)


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return not name.startswith(".") and Path(name).suffix.lower() in decode.file_suffixes()


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        folder = entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        folder = False
    # What a link without an end was is anyone's guess: a class, perhaps. That of an image is a bad image.
    if not folder and entry.is_symlink() and not is_image(entry.name) and not Path(entry.path).exists():
        raise OSError(errno.ENOENT, f"{sample_keys.printable_name(entry.name)} is a link that leads nowhere")
    return folder
