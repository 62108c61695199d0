"""Walk the files and folders below a source: each once, in order of their names, and none left out in silence."""

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
    """Lists folders and files below one source, and remembers what it has met."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.passed_over: set[Path] = set()
        """Hidden folders, those of other programs, and loops of links: not listed, but counted in a warning."""
        self._path_by_inode: dict[tuple[int, int], Path] = {}

    def folders(self, folder: Path) -> list[Path]:
        """The folders in a folder, sorted by name; hidden ones and those of other programs go to `passed_over`.

        Raises:
            DataError: it cannot be listed, or a name cannot be stored as text.
        """
        return self._list(folder)[0]

    def files(self, folder: Path) -> Iterator[Path]:
        """All files below a folder, depth first, each folder's sorted by name.

        Raises:
            DataError: a folder cannot be listed, is met a second time by another path, or a name cannot be stored as
                text. A link to a folder that holds it is a loop: passed over and counted, as nothing is lost by it.
        """
        # A link to a folder that holds the source is a loop too: its images would be those of the source once more.
        for parent in folder.absolute().parents:
            self._path_by_inode.setdefault(_inode(parent), parent)
        pending = [folder]
        while pending:
            path = pending.pop()
            if self._enter(path):
                folders, files = self._list(path)
                yield from files
                pending += reversed(folders)

    def _list(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Folders and all else of one folder, sorted by name."""
        try:
            with os.scandir(folder) as entries:
                listing = sorted((entry.name, _is_folder(entry)) for entry in entries)
        except OSError as error:
            raise _listing_error(folder, error) from error
        remaining = []
        for name, is_folder in listing:
            if is_folder and (name.startswith(".") or name.lower() in _BY_PRODUCTS):
                self.passed_over.add(folder / name)
            else:
                remaining.append((name, is_folder))
        # Names become keys in tars and in JSON: one that is not text would fail in the middle of writing.
        self._require_text(folder, [name for name, _ in remaining])
        folders = [folder / name for name, is_folder in remaining if is_folder]
        return folders, [folder / name for name, is_folder in remaining if not is_folder]

    def _require_text(self, folder: Path, listing: list[str]) -> None:
        faults = {name: fault for name in listing if (fault := sample_keys.name_fault(name))}
        if faults:
            names = image_source.summarise_problems(
                [f"{sample_keys.printable_name(name)} {fault}" for name, fault in faults.items()]
            )
            what = f"{len(faults)} names cannot be stored as text: {names}"
            raise errors.DataError(
                sample_keys.printable_name(str(folder)), what, sample_keys.fault_cure(faults.values())
            )

    def _enter(self, folder: Path) -> bool:
        # By device and inode, not by resolved path: a folder that is mounted twice has two of those. Some filesystems
        # give no inodes, but 0 to all: there, nothing can be told apart.
        inode, path = _inode(folder), folder.absolute()
        other = self._path_by_inode.setdefault(inode, path)
        if other == path or inode[1] == 0:
            return True
        # A link to a folder above it hides no image, as all of them are met on the way: passed over. Two names of a
        # folder side by side would give each image two keys, and count it twice: refused.
        if path.is_relative_to(other):
            self.passed_over.add(folder)
            return False
        root = self.root.absolute()
        raise errors.DataError(
            self.root,
            f"{other.relative_to(root)} and {path.relative_to(root)} are one folder by two names, "
            "so that each of its images would count twice",
            "Remove one of the links",
        )


def _inode(folder: Path) -> tuple[int, int]:
    try:
        stat_result = folder.stat()
    except OSError as error:
        raise _listing_error(folder, error) from error
    return stat_result.st_dev, stat_result.st_ino


def _listing_error(folder: Path, error: OSError) -> errors.DataError:
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
    # A broken link may have been a class folder, which must not be left out in silence. One with an image's name is a
    # bad image, and treated as such later.
    if not folder and entry.is_symlink() and not is_image(entry.name) and not Path(entry.path).exists():
        raise OSError(errno.ENOENT, f"{sample_keys.printable_name(entry.name)} is a link that leads nowhere")
    return folder
