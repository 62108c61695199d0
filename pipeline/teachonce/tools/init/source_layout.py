"""What a folder of someone's images is: class folders, splits, a flat folder, or WebDataset tars."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from teachonce.core import errors
from teachonce.prepare import dataset_config, split_names
from teachonce.prepare.folder_walk import FolderWalker, is_image
from teachonce.shards import decode

VAL_FRACTION = 0.2
"""Share of the images that is held out where the folder has no validation split of its own."""

UNLABELLED_NOTE = (
    "no image has a label: students copy what a teacher of ImageNet's 1,000 classes says of the images, and the report"
    " tells agreement with it, not accuracy. For classes of your own, put the images into a folder for each class"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a configuration that was decided."""

    value: object
    """Plain data."""
    reason: str
    """Why, for the comment beside it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the images lie, as what a file of configs/dataset says of it."""

    root: Path
    """What `source` in params.yaml has to be: the folder, or one below it."""
    settings: Mapping[str, Setting]
    """Keys of configs/dataset that were decided, the kind among them."""
    has_labels: bool = True
    """Whether some image has a label."""
    notes: tuple[str, ...] = ()
    """What a person should know of it, a line each."""

    def values(self) -> dict[str, object]:
        """The keys with their values alone."""
        return {key: setting.value for key, setting in self.settings.items()}

    def with_setting(self, key: str, value: object, reason: str) -> "Layout":
        """The layout with one more key decided."""
        return replace(self, settings={**self.settings, key: Setting(value, reason)})


def find_layout(folder: Path) -> Layout:
    """How the images of a folder lie.

    Raises:
        DataError: there is no image, or the folder cannot be listed.
    """
    root, names = _first_with_choice(folder)
    splits = split_names.classify(names)
    name_by_split = {split: name for name, split in splits.items() if split != "other"}
    loose = _loose_images(root)
    if not names:
        if not loose:
            endings = " ".join(sorted(decode.file_suffixes()))
            raise errors.DataError(folder, "holds no image and no tar", f"Endings of images: {endings}")
        if root != folder:
            return _flat(root, f"{root.name} is the one folder with images: one class tells nothing apart")
        return _flat(root)
    if {"train", "val"} <= name_by_split.keys():
        return _of_splits(root, name_by_split)
    if 0 < len(splits) == len(names) and "train" in name_by_split:
        return _class_folders(root / name_by_split["train"], ("there is a training split alone",))
    return _class_folders(root, ())


def _first_with_choice(folder: Path) -> tuple[Path, list[str]]:
    """The first folder, going down, that holds more than one other folder, or images; with the names of those."""
    root = folder
    while True:
        folders = FolderWalker(root).folders(root)
        if len(folders) != 1 or _loose_images(root):
            return root, [path.name for path in folders]
        (root,) = folders


def _loose_images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_image(path.name) and not path.is_dir())


def _flat(root: Path, *notes: str) -> Layout:
    settings = {
        **_held_out("a flat folder has no splits"),
        "classes": Setting(
            dataset_config.IMAGENET_1K, "the classes of the teacher, in its order: the images have none"
        ),
        "labels": Setting("optional", "no image lies in a class folder"),
        "allow_empty_classes": Setting(value=True, reason="no image has a label"),
    }
    return Layout(root, settings, has_labels=False, notes=(*notes, UNLABELLED_NOTE))


def _of_splits(root: Path, name_by_split: Mapping[str, str]) -> Layout:
    train, val = name_by_split["train"], name_by_split["val"]
    if not FolderWalker(root).folders(root / val):
        note = f"{val} holds no class folders, so that nothing could be measured on it: passed over"
        return _class_folders(root / train, (note,))
    settings = {
        "kind": Setting("image_folder", "a folder for each class"),
        "val_fraction": Setting(None, "there are folders for the splits"),
        "train": Setting(train, "the folder to learn from"),
        "val": Setting(val, "the folder to measure on"),
    }
    return Layout(root, settings | _labels(root / train, root / val))


def _class_folders(root: Path, notes: tuple[str, ...]) -> Layout:
    if not FolderWalker(root).folders(root):
        return _flat(root)
    return Layout(root, _held_out("no folders for train and val") | _labels(root), notes=notes)


def _held_out(reason: str) -> dict[str, Setting]:
    return {
        "kind": Setting("image_folder", "images as files"),
        "val_fraction": Setting(VAL_FRACTION, f"a fifth is held out to measure on: {reason}"),
    }


def _labels(train: Path, *others: Path) -> dict[str, Setting]:
    """`classes` and `labels` where images lie beside the class folders, too."""
    loose = sum(len(_loose_images(folder)) for folder in (train, *others))
    if not loose:
        return {}
    names = [path.name for path in FolderWalker(train).folders(train)]
    return {
        "classes": Setting(names, "the folders of the training images"),
        "labels": Setting("optional", f"{loose} images lie outside the class folders, and are taken without a label"),
    }
