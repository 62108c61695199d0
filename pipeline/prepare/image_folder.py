"""A folder of images for each class; with optional labels, images anywhere."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.base import errors
from pipeline.prepare import classes, keys, source
from pipeline.prepare.config import ImageFolder
from pipeline.prepare.source import UNSPLIT, Item, Source
from pipeline.shards import decode, index


def listing(data: ImageFolder, root: Path) -> Source:
    """List the images below `root`.

    Files without an image's ending, and hidden files and folders, are passed over and counted.

    Raises:
        DataError: there is no class folder or no image, an image lies outside the class folders, a folder is not in the
            list of classes, a class has no training image, or two files give one key.
    """
    folders = [(UNSPLIT, root)] if data.val_fraction else [(split, root / split) for split in index.SPLITS]
    required = data.labels == "required"
    for _, folder in folders:
        _refuse_loose(folder, allowed=not required)
    names = classes.given(data.classes) or _infer(folders[0][1])
    walk = _Walk(root, {name: label for label, name in enumerate(names)})
    items = walk.items if required else walk.everything
    parts = {split: list(items(folder)) for split, folder in folders}
    walk.refuse()
    if required and not data.allow_empty_classes:
        for folder in walk.empty:
            raise errors.DataError(
                f"{folder}: has no image. Remove the folder, add images, or set allow_empty_classes: true"
            )
        source.refuse_empty(root, names, _count(parts[folders[0][0]], len(names)))
    return Source(classes=names, parts=parts, read=lambda name: (root / name).read_bytes(), ignored=walk.ignored)


class _Walk:
    """The class folders, one after the other, with what is wrong about them."""

    def __init__(self, root: Path, labels: dict[str, int]) -> None:
        self.ignored = 0
        self.empty: list[Path] = []
        self._root = root
        self._labels = labels
        self._unknown: list[str] = []
        self._names: dict[str, str] = {}
        self._clashes: list[str] = []

    def items(self, folder: Path) -> Iterator[Item]:
        """Images of all classes below `folder`, sorted by name."""
        found = False
        for class_folder in _folders(folder):
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
                f"{folder}: holds no image in a class folder. Endings of images: {' '.join(sorted(decode.suffixes()))}"
            )

    def everything(self, folder: Path) -> Iterator[Item]:
        """All images below `folder`, sorted by name; those outside a class folder have no label."""
        for path in self._files(folder):
            first, *deeper = path.relative_to(folder).parts
            yield self._item(path, self._labels.get(first, index.UNLABELLED) if deeper else index.UNLABELLED)

    def refuse(self) -> None:
        """Raise for folders that are no class and for files that share a key."""
        if self._unknown:
            raise errors.DataError(
                f"{self._root}: {len(self._unknown)} folders are not in the list of {len(self._labels)} classes: "
                f"{source.first(self._unknown)}. Rename them, or correct classes"
            )
        if self._clashes:
            raise errors.DataError(
                f"{self._root}: {len(self._clashes)} pairs of files differ in their ending alone and would share a "
                f"key: {source.first(self._clashes)}. Rename one of each pair"
            )

    def _files(self, folder: Path) -> Iterator[Path]:
        for place, folders, names in os.walk(folder, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if _is_image(name):
                    yield Path(place, name)
                else:
                    self.ignored += 1

    def _item(self, path: Path, label: int) -> Item:
        relative = path.relative_to(self._root)
        name, key = relative.as_posix(), keys.from_path(relative)
        other = self._names.setdefault(key, name)
        if other != name:
            self._clashes.append(f"{other} and {name}")
        return Item(key, label, name)


def _infer(folder: Path) -> Sequence[str]:
    names = sorted(path.name for path in _folders(folder))
    if set(names) == set(index.SPLITS):
        raise errors.DataError(
            f"{folder}: holds the folders train and val, which are splits, not classes. Set val_fraction: null"
        )
    if not names:
        raise errors.DataError(f"{folder}: holds no class folder. Put the images into one folder for each class")
    return names


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in _listdir(folder) if path.is_dir() and not path.name.startswith("."))


def _refuse_loose(folder: Path, *, allowed: bool) -> None:
    loose = sorted(path.name for path in _listdir(folder) if _is_image(path.name) and path.is_file())
    if loose and not allowed:
        raise errors.DataError(
            f"{folder}: {len(loose)} images lie outside the class folders: {source.first(loose)}. "
            "Move each into the folder of its class, or set labels: optional"
        )


def _listdir(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        cure = "Correct source in params.yaml, or set val_fraction if there are no folders train and val"
        raise errors.DataError(f"{folder}: cannot be listed ({error.strerror}). {cure}") from error


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in decode.suffixes()


def _count(items: Sequence[Item], classes_count: int) -> list[int]:
    counts = [0] * classes_count
    for item in items:
        counts[item.label] += 1
    return counts
