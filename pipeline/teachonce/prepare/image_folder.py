"""A folder of images for each class; with optional labels, images anywhere."""

import errno
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from teachonce.core import errors, files
from teachonce.prepare import class_names, image_source, split_names
from teachonce.prepare.dataset_config import ImageFolder
from teachonce.prepare.folder_walk import FolderWalker, is_image
from teachonce.prepare.image_source import UNSPLIT, ListedImage, ListedSource
from teachonce.shards import decode, index, sample_keys

_LOG = logging.getLogger(__name__)
_MOST_LOOKED_INTO = 100
"""Folders, for splits that lie a folder deeper than the source says."""


def list_folder(data: ImageFolder, root: Path) -> ListedSource:
    """List the images below `root`.

    Files without an image's ending, hidden files and folders, and what other programs leave are passed over and
    counted.

    Raises:
        DataError: there is no class folder or no image, there is one class alone, an image lies outside the class
            folders, a folder is a split, is not in the list of classes, cannot be listed, or is met twice, a class has
            no training image, or two files give one key.
    """
    folders = _folders(data, root)
    required = data.labels == "required"
    walk = FolderWalker(root)
    for _, folder in folders:
        _refuse_loose(folder, allowed=not required)
    names = class_names.from_config(data.classes) or _infer(walk, folders[0][1])
    images = _Images(walk, {name: label for label, name in enumerate(names)}, inferred=data.classes is None)
    items = images.of_classes if required else images.everything
    parts = {split: list(items(folder)) for split, folder in folders}
    images.refuse()
    if required and not data.allow_empty_classes:
        for folder in images.empty:
            raise errors.DataError(
                folder, "has no image", "Remove the folder, add images, or set allow_empty_classes: true"
            )
        image_source.refuse_empty_classes(root, names, _count(parts[folders[0][0]], len(names)))
    _tell(walk, images, root)
    return ListedSource(classes=names, parts=parts, read=lambda name: _read(root / name), ignored=images.ignored)


class _Images:
    """The images of a source, with what is wrong about them."""

    def __init__(self, walk: FolderWalker, labels: dict[str, int], *, inferred: bool) -> None:
        self.ignored = 0
        self.empty: list[Path] = []
        self._walk = walk
        self._root = walk.root
        self._labels = labels
        self._inferred = inferred
        self._unknown: list[str] = []
        self._names: dict[str, str] = {}
        self._clashes: list[str] = []

    def of_classes(self, folder: Path) -> Iterator[ListedImage]:
        """Images of all classes below `folder`, sorted by name."""
        found = False
        for class_folder in self._walk.folders(folder):
            label = self._labels.get(class_folder.name)
            if label is None:
                self._unknown.append(str(class_folder.relative_to(self._root)))
                continue
            before = len(self._names)
            for path in self._files(class_folder):
                yield self._item(path, label)
            if len(self._names) == before:
                self.empty.append(class_folder)
            found = found or len(self._names) > before
        if not found and not self._unknown:
            raise errors.DataError(
                folder,
                "holds no image in a class folder",
                f"Endings of images: {' '.join(sorted(decode.file_suffixes()))}",
            )

    def everything(self, folder: Path) -> Iterator[ListedImage]:
        """All images below `folder`, sorted by name; those outside a class folder have no label."""
        for path in self._files(folder):
            first, *deeper = path.relative_to(folder).parts
            yield self._item(path, self._labels.get(first, index.UNLABELLED) if deeper else index.UNLABELLED)

    def refuse(self) -> None:
        """Raise for folders that are no class and for files that share a key."""
        if self._unknown:
            listed, cure = f"in the list of {len(self._labels)} classes", "Rename them, or correct classes"
            if self._inferred:
                listed = f"among the {len(self._labels)} classes that have a folder of training images"
                cure = "Add training images of them, remove or rename them, or list classes"
            names = image_source.summarise_problems(self._unknown)
            raise errors.DataError(self._root, f"{len(self._unknown)} folders are not {listed}: {names}", cure)
        if self._clashes:
            raise errors.DataError(
                self._root,
                f"{len(self._clashes)} pairs of files differ in their ending alone and would share a "
                f"key: {image_source.summarise_problems(self._clashes)}",
                "Rename one of each pair",
            )

    def _files(self, folder: Path) -> Iterator[Path]:
        for path in self._walk.files(folder):
            if is_image(path.name):
                yield path
            else:
                self.ignored += 1

    def _item(self, path: Path, label: int) -> ListedImage:
        relative = path.relative_to(self._root)
        name, key = relative.as_posix(), sample_keys.from_path(relative)
        other = self._names.setdefault(key, name)
        if other != name:
            self._clashes.append(f"{other} and {name}")
        return ListedImage(key, label, name)


def _folders(data: ImageFolder, root: Path) -> list[tuple[str, Path]]:
    """The splits with their folders.

    Raises:
        DataError: a split's folder is not there, or splits would be taken for classes.
    """
    names = [path.name for path in FolderWalker(root).folders(root)]
    if data.val_fraction is not None:
        _refuse_splits(data, root, names)
        return [(UNSPLIT, root)]
    for split, name in (("train", data.train), ("val", data.val)):
        if name not in names:
            seen = f"it has {image_source.summarise_problems(names)}" if names else "it has none"
            cure = _cure(root, names)
            raise errors.DataError(root, f"has no folder {name} for the images of {split}; {seen}", cure)
    if beside := [*sorted({*names} - {data.train, data.val}), *_loose(root)]:
        _LOG.warning(
            "%s: takes %s and %s; left out: %s", root, data.train, data.val, image_source.summarise_problems(beside)
        )
    return [("train", root / data.train), ("val", root / data.val)]


def _cure(root: Path, names: Sequence[str]) -> str:
    found = split_names.classify(names)
    if {"train", "val"} <= set(found.values()):
        return f"Set {split_names.suggested_settings(found)} in configs/dataset"
    for name in names[:_MOST_LOOKED_INTO]:
        below = split_names.classify(path.name for path in FolderWalker(root).folders(root / name))
        if {"train", "val"} <= set(below.values()):
            return f"Set source to {root / name} in params.yaml"
    return "Set train and val to its folders, or val_fraction, for instance 0.1, if it holds one folder for each class"


def _refuse_splits(data: ImageFolder, root: Path, names: Sequence[str]) -> None:
    given = class_names.from_config(data.classes) or ()
    found = split_names.classify(name for name in names if name not in given)
    both = {"train", "val"} <= set(found.values())
    alone = data.labels == "required" and 0 < len(found) == len(names)
    if both or alone:
        inner = f"source to {root / min(found)} in params.yaml, if the classes lie below it"
        raise errors.DataError(
            root,
            f"holds {' and '.join(sorted(found))}, which are splits, not classes",
            f"Set {split_names.suggested_settings(found) if both else inner}",
        )


def _infer(walk: FolderWalker, folder: Path) -> Sequence[str]:
    names = [path.name for path in walk.folders(folder)]
    if not names:
        raise errors.DataError(folder, "holds no class folder", "Put the images into one folder for each class")
    if len(names) == 1:
        raise errors.DataError(
            folder,
            f"holds one class folder alone, {names[0]}: there is nothing to tell apart",
            f"Set source to the folder that holds the class folders, or, if one class is meant, classes: [{names[0]}]",
        )
    return names


def _loose(folder: Path) -> list[str]:
    """Images that lie in a folder itself, by their names."""
    names = (path.name for path in folder.iterdir() if is_image(path.name) and not path.is_dir())
    return sorted(sample_keys.printable_name(name) for name in names)


def _refuse_loose(folder: Path, *, allowed: bool) -> None:
    loose = _loose(folder)
    if loose and not allowed:
        raise errors.DataError(
            folder,
            f"{len(loose)} images lie outside the class folders: {image_source.summarise_problems(loose)}",
            "Move each into the folder of its class, or set labels: optional",
        )


def _tell(walk: FolderWalker, images: _Images, root: Path) -> None:
    def tell(what: str, folders: Iterable[Path]) -> None:
        if names := sorted(sample_keys.printable_name(path.relative_to(root).as_posix()) for path in folders):
            _LOG.warning("%s: %d folders %s: %s", root, len(names), what, image_source.summarise_problems(names))

    tell("passed over that are hidden, loops, or of other programs", walk.passed)
    tell("of classes hold no image", images.empty)
    if images.ignored:
        _LOG.warning("%s: %d files passed over that are no images by their name", root, images.ignored)


def _read(path: Path) -> bytes:
    try:
        return files.read_bytes(path, decode.MAX_BYTES)
    except ValueError as error:
        raise OSError(errno.EFBIG, str(error)) from error


def _count(items: Sequence[ListedImage], classes_count: int) -> list[int]:
    counts = [0] * classes_count
    for item in items:
        counts[item.label] += 1
    return counts
