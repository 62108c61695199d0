"""A source with a folder of images for each class; with optional labels, with images anywhere."""

import errno
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from teachonce.core import errors, files
from teachonce.prepare import class_names, image_source, split_names
from teachonce.prepare.dataset_config import ImageFolder
from teachonce.prepare.folder_walk import FolderWalker, is_image
from teachonce.prepare.image_source import UNSPLIT, ListedImage, ListedSource
from teachonce.shards import decode, index, sample_keys

_LOG = logging.getLogger(__name__)
_MAX_ENDINGS = 5
_UNREAD = frozenset({".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".jxl"})
"""Endings of pictures by phones and cameras that Pillow does not decode."""
_MAX_SEARCHED = 100
"""Folders that are searched at most for splits that lie one folder deeper than the source says."""


def list_folder(settings: ImageFolder, root: Path) -> ListedSource:
    """List the images below `root` with their labels; none is read yet.

    Files without an image's ending, hidden files and folders, and what other programs leave are passed over and
    counted.

    Raises:
        DataError: there is no class folder or no image, there is one class alone, an image lies outside the class
            folders, a folder is a split, is not in the list of classes, cannot be listed, or is met twice, a class has
            no training image, or two files give one key.
    """
    folders = _split_folders(settings, root)
    required = settings.labels == "required"
    walker = FolderWalker(root)
    for _, folder in folders:
        _refuse_loose(folder, allowed=not required)
    names = class_names.from_config(settings.classes) or _infer_classes(walker, folders[0][1])
    images = _Images(walker, {name: label for label, name in enumerate(names)}, inferred=settings.classes is None)
    images_of = images.images_of_classes if required else images.all_images
    splits = {split: list(images_of(folder)) for split, folder in folders}
    # Unknown folders are refused first: a misspelt class would else be reported as a class without an image.
    images.raise_if_any()
    if required and not settings.allow_empty_classes:
        for folder in images.empty:
            raise errors.DataError(
                folder, "has no image", "Remove the folder, add images, or set allow_empty_classes in configs/dataset"
            )
        image_source.refuse_empty_classes(root, names, _label_counts(splits[folders[0][0]], len(names)))
    _warn_of_omissions(walker, images, root)
    return ListedSource(
        classes=names, splits=splits, read=lambda name: _read(root / name), ignored=images.ignored.total()
    )


class _Images:
    """Lists the images of a source, and collects what is wrong, so that one run lists all problems."""

    def __init__(self, walker: FolderWalker, labels: dict[str, int], *, inferred: bool) -> None:
        self.ignored = Counter[str]()
        self.empty: list[Path] = []
        self._walker = walker
        self._root = walker.root
        self._labels = labels
        self._label_by_composed_name = _by_composed_name(labels)
        self._inferred = inferred
        self._unknown_folders: list[str] = []
        self._name_by_key: dict[str, str] = {}
        self._clashes: list[str] = []

    def images_of_classes(self, folder: Path) -> Iterator[ListedImage]:
        """Images of all classes below `folder`, class by class, sorted by name."""
        has_images = False
        for class_folder in self._walker.folders(folder):
            label = self._label(class_folder.name)
            if label is None:
                self._unknown_folders.append(str(class_folder.relative_to(self._root)))
                continue
            count_before = len(self._name_by_key)
            for path in self._files(class_folder):
                yield self._listed_image(path, label)
            if len(self._name_by_key) == count_before:
                self.empty.append(class_folder)
            has_images = has_images or len(self._name_by_key) > count_before
        if not has_images and not self._unknown_folders:
            raise errors.DataError(
                folder,
                "holds no image in a class folder",
                f"Endings of images: {' '.join(sorted(decode.file_suffixes()))}{_conversion_hint(self.ignored)}",
            )

    def all_images(self, folder: Path) -> Iterator[ListedImage]:
        """All images below `folder`, sorted by name; those outside a class folder have no label."""
        for path in self._files(folder):
            first, *deeper = path.relative_to(folder).parts
            label = self._label(first) if deeper else None
            yield self._listed_image(path, index.UNLABELLED if label is None else label)

    def raise_if_any(self) -> None:
        """Refuse folders that are no class, and files that share a key.

        Raises:
            DataError: there are some.
        """
        if self._unknown_folders:
            listed, cure = f"in the list of {len(self._labels)} classes", "Rename them, or correct classes"
            if self._inferred:
                listed = f"among the {len(self._labels)} classes that have a folder of training images"
                cure = "Add training images of them, remove or rename them, or list classes"
            names = image_source.summarise_problems(self._unknown_folders)
            raise errors.DataError(self._root, f"{len(self._unknown_folders)} folders are not {listed}: {names}", cure)
        if self._clashes:
            raise errors.DataError(
                self._root,
                f"{len(self._clashes)} pairs of files differ in their ending alone and would share a "
                f"key: {image_source.summarise_problems(self._clashes)}",
                "Rename one of each pair",
            )

    def _label(self, name: str) -> int | None:
        """Label of a class folder; None where it is of no class."""
        # Of a name with an umlaut there are two spellings, which look the same: macOS copies leave one, most editors
        # and other systems the other.
        composed = unicodedata.normalize("NFC", name)
        return self._labels.get(name, self._label_by_composed_name.get(composed))

    def _files(self, folder: Path) -> Iterator[Path]:
        for path in self._walker.files(folder):
            if is_image(path.name):
                yield path
            else:
                self.ignored[path.suffix.lower() or "without an ending"] += 1

    def _listed_image(self, path: Path, label: int) -> ListedImage:
        relative = path.relative_to(self._root)
        name, key = relative.as_posix(), sample_keys.from_path(relative)
        # A key has no file ending: cat.jpg and cat.png would be one sample of two images in a WebDataset tar.
        other = self._name_by_key.setdefault(key, name)
        if other != name:
            self._clashes.append(f"{other} and {name}")
        return ListedImage(key, label, name)


def _by_composed_name(labels: Mapping[str, int]) -> dict[str, int]:
    """Labels by the composed spelling of their names, but for names that differ in their spelling alone."""
    composed = {name: unicodedata.normalize("NFC", name) for name in labels}
    spellings = Counter(composed.values())
    return {composed[name]: label for name, label in labels.items() if spellings[composed[name]] == 1}


def _split_folders(settings: ImageFolder, root: Path) -> list[tuple[str, Path]]:
    """Each split with its folder, or `UNSPLIT` with the root.

    Raises:
        DataError: a split's folder is not there, or splits would be taken for classes.
    """
    names = [path.name for path in FolderWalker(root).folders(root)]
    if settings.val_fraction is not None:
        _refuse_splits(settings, root, names)
        return [(UNSPLIT, root)]
    for split, name in (("train", settings.train), ("val", settings.val)):
        if name not in names:
            content = f"it has {image_source.summarise_problems(names)}" if names else "it has none"
            cure = _split_cure(root, names)
            raise errors.DataError(root, f"has no folder {name} for the images of {split}; {content}", cure)
    if left_out := [*sorted({*names} - {settings.train, settings.val}), *_loose_images(root)]:
        _LOG.warning(
            "%s: takes %s and %s; left out: %s",
            root,
            settings.train,
            settings.val,
            image_source.summarise_problems(left_out),
        )
    return [("train", root / settings.train), ("val", root / settings.val)]


def _split_cure(root: Path, names: Sequence[str]) -> str:
    splits = split_names.classify(names)
    if {"train", "val"} <= set(splits.values()):
        return f"Set {split_names.suggested_settings(splits)} in configs/dataset"
    for name in names[:_MAX_SEARCHED]:
        inner_splits = split_names.classify(path.name for path in FolderWalker(root).folders(root / name))
        if {"train", "val"} <= set(inner_splits.values()):
            return f"Set source to {root / name} in params.yaml"
    return "Set train and val to its folders, or val_fraction, for instance 0.1, if it holds one folder for each class"


def _refuse_splits(settings: ImageFolder, root: Path, names: Sequence[str]) -> None:
    # Taken for classes, folders named train and val would train a student to tell the splits apart, and nothing would
    # fail.
    configured_names = class_names.from_config(settings.classes) or ()
    splits = split_names.classify(name for name in names if name not in configured_names)
    has_both = {"train", "val"} <= set(splits.values())
    only_splits = settings.labels == "required" and 0 < len(splits) == len(names)
    if has_both or only_splits:
        inner = f"source to {root / min(splits)} in params.yaml, if the classes lie below it"
        raise errors.DataError(
            root,
            f"holds {' and '.join(sorted(splits))}, which are splits, not classes",
            f"Set {split_names.suggested_settings(splits) if has_both else inner}",
        )


def _infer_classes(walker: FolderWalker, folder: Path) -> Sequence[str]:
    # From the folder of the training images: a class that only validation images have could not be learned, and is
    # refused later.
    names = [path.name for path in walker.folders(folder)]
    if not names:
        raise errors.DataError(folder, "holds no class folder", "Put the images into one folder for each class")
    if len(names) == 1:
        raise errors.DataError(
            folder,
            f"holds one class folder alone, {names[0]}: there is nothing to tell apart",
            f"Set source to the folder that holds the class folders, or, if one class is meant, classes: [{names[0]}]",
        )
    return names


def _loose_images(folder: Path) -> list[str]:
    """Images that lie in a folder itself, by their names."""
    names = (path.name for path in folder.iterdir() if is_image(path.name) and not path.is_dir())
    return sorted(sample_keys.printable_name(name) for name in names)


def _refuse_loose(folder: Path, *, allowed: bool) -> None:
    loose = _loose_images(folder)
    if loose and not allowed:
        raise errors.DataError(
            folder,
            f"{len(loose)} images lie outside the class folders: {image_source.summarise_problems(loose)}",
            "Move each into the folder of its class, or set labels: optional",
        )


def _warn_of_omissions(walker: FolderWalker, images: _Images, root: Path) -> None:
    def warn(what: str, folders: Iterable[Path]) -> None:
        if names := sorted(sample_keys.printable_name(path.relative_to(root).as_posix()) for path in folders):
            _LOG.warning("%s: %d folders %s: %s", root, len(names), what, image_source.summarise_problems(names))

    warn("passed over that are hidden, loops, or of other programs", walker.passed_over)
    warn("of classes hold no image", images.empty)
    if images.ignored:
        endings = ", ".join(f"{count} {ending}" for ending, count in images.ignored.most_common(_MAX_ENDINGS))
        _LOG.warning(
            "%s: %d files passed over that are no images by their name: %s%s",
            *(root, images.ignored.total(), endings, _conversion_hint(images.ignored)),
        )


def _conversion_hint(endings: Iterable[str]) -> str:
    """What helps where pictures lie in a form that nothing here decodes; empty where none does."""
    unread = sorted(_UNREAD.intersection(endings))
    return f". Pictures in {' '.join(unread)} are to be saved as JPEG first" if unread else ""


def _read(path: Path) -> bytes:
    try:
        return files.read_bytes(path, decode.MAX_BYTES)
    except ValueError as error:
        # A file that is too long is a bad image like any other: as an OSError, it may be skipped.
        raise OSError(errno.EFBIG, str(error)) from error


def _label_counts(images: Sequence[ListedImage], classes_count: int) -> list[int]:
    counts = [0] * classes_count
    for image in images:
        counts[image.label] += 1
    return counts
