"""The models of configs/dataset/*.yaml: which images, which classes, which split."""

from pathlib import Path
from typing import Annotated, Literal

import pydantic

from teachonce.core import config, errors, spelling
from teachonce.shards import decode, sample_keys

IMAGENET_1K: Literal["imagenet-1k"] = "imagenet-1k"

Fraction = Annotated[float, pydantic.Field(gt=0, lt=1)]
Count = Annotated[int, pydantic.Field(ge=1)]
Names = Annotated[tuple[Annotated[str, pydantic.Field(min_length=1)], ...], pydantic.Field(min_length=1)]
FolderName = Annotated[str, pydantic.Field(pattern=r"^[^./\\][^/\\]*$")]
Classes = Names | Literal["imagenet-1k"] | None
Labels = Literal["required", "optional"]


def _require_unique_names(names: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
    if isinstance(names, tuple) and len(set(names)) < len(names):
        raise ValueError("class names must differ")
    for name in names if isinstance(names, tuple) else ():
        if fault := sample_keys.name_fault(name):
            raise ValueError(f"a class name {fault}")
    return names


def _require_class_list(labels: Labels, info: pydantic.ValidationInfo) -> Labels:
    # Where few images have a label, the labels that occur do not tell how the teacher numbers its classes. The default
    # () stands for classes that were refused themselves: one problem is enough.
    if labels == "optional" and info.data.get("classes", ()) is None:
        raise ValueError("with optional labels, classes must be a list or imagenet-1k, in the order of the teacher's")
    return labels


class WrittenSource(config.Model):
    """Settings of every source whose images are written into new tars."""

    rows_per_tar: int = pydantic.Field(default=1000, ge=1)
    """Rows of a tar; the last one of a split may be shorter."""
    split_seed: int = pydantic.Field(default=0, ge=0)
    """Seed of the order of rows, which decides the held-out part and the subsets below too."""
    train_images: Count | None = None
    """Take this many training images; null takes all. A larger number keeps the rows of a smaller one in place."""
    val_images: Count | None = None
    """Take this many validation images; null takes all."""
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    """What an unusable image does: refuse the whole source, or be left out and recorded in the index."""
    max_pixels: int = pydantic.Field(default=decode.MAX_PIXELS, ge=1, le=decode.MAX_PIXELS)
    """Width × height above which an image is unusable."""
    max_side: int | None = pydantic.Field(default=None, ge=32)
    """Longer side in pixels above which an image is stored smaller, since every view decodes it; null: none is."""

    @property
    def requires_all_classes(self) -> bool:
        """Whether each class must have a training image, once the images are split."""
        return True


class Digits(WrittenSource):
    """scikit-learn's copy of the UCI handwritten digits: 1,797 images of 8 × 8, ten classes, no network."""

    kind: Literal["digits"]
    """Selects this source."""
    val_fraction: Fraction
    """Share of the images that is held out for validation."""


class FashionMnist(WrittenSource):
    """Fashion-MNIST: 60,000 + 10,000 images of 28 × 28, ten classes; its test images are the validation split."""

    kind: Literal["fashion_mnist"]
    """Selects this source."""


class ImageFolder(WrittenSource):
    """A folder of images for each class."""

    kind: Literal["image_folder"]
    """Selects this source."""
    val_fraction: Fraction | None = None
    """Part held out for validation; null: the source has a folder for each split, with the classes in each."""
    train: FolderName = "train"
    """Folder of the training images, where val_fraction is null."""
    val: FolderName = "val"
    """Folder of the validation images, where val_fraction is null."""
    classes: Classes = None
    """Class names in label order, or `imagenet-1k`; null: the folders' names, sorted."""
    labels: Labels = "required"
    """`optional` takes every image: in a folder named as one of `classes` with its label, anywhere else without one."""
    allow_empty_classes: bool = False
    """Accept classes without a training image; so do optional labels."""

    _names_are_unique = pydantic.field_validator("classes")(_require_unique_names)
    _labels_have_names = pydantic.field_validator("labels")(_require_class_list)

    @property
    def requires_all_classes(self) -> bool:
        """Whether each class must have a training image: unless empty ones are allowed, or labels are optional."""
        return self.labels == "required" and not self.allow_empty_classes

    @pydantic.model_validator(mode="after")
    def _require_two_folders(self) -> "ImageFolder":
        if self.train == self.val:
            raise ValueError("train and val must be two folders")
        if self.val_fraction is not None and (self.train, self.val) != ("train", "val"):
            raise ValueError("train and val name folders where val_fraction is null")
        return self


class WebDataset(config.Model):
    """WebDataset tars that exist already; they are indexed where they lie."""

    kind: Literal["webdataset"]
    """Selects this source."""
    train: Names
    """Globs of the training tars, relative to the source."""
    val: Names
    """Globs of the validation tars, relative to the source."""
    classes: Classes = None
    """Class names in label order, or `imagenet-1k`; null: the labels, "0" to the highest."""
    labels: Labels = "required"
    """`optional` takes rows without a label (`.cls`) too."""
    allow_empty_classes: bool = False
    """Accept classes without a training image; so do optional labels."""
    on_bad_image: Literal["refuse"] = "refuse"
    """Rows of an existing tar cannot be left out."""
    max_pixels: int = pydantic.Field(default=decode.MAX_PIXELS, ge=1, le=decode.MAX_PIXELS)
    """Width × height above which an image is refused."""

    _names_are_unique = pydantic.field_validator("classes")(_require_unique_names)
    _labels_have_names = pydantic.field_validator("labels")(_require_class_list)

    @pydantic.field_validator("on_bad_image", mode="before")
    @classmethod
    def _refuse_skip(cls, value: object) -> object:
        # Asked before the Literal is, whose refusal could not say why.
        if value == "skip":
            raise ValueError("an adopted tar is not rewritten, so none of its rows can be skipped; use refuse")
        return value

    @pydantic.field_validator("train", "val")
    @classmethod
    def _require_below_source(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        # The index names tars relative to a base, so that both can be moved: a tar outside would stay behind.
        if any(Path(glob).is_absolute() or ".." in Path(glob).parts for glob in globs):
            raise ValueError("a glob must stay below the source")
        return globs


Data = Digits | FashionMnist | ImageFolder | WebDataset
_KINDS: dict[str, type[Data]] = {
    "digits": Digits,
    "fashion_mnist": FashionMnist,
    "image_folder": ImageFolder,
    "webdataset": WebDataset,
}


def load(path: Path) -> Data:
    """Read a file of configs/dataset as the model of its `kind`.

    Raises:
        ConfigError: the file is missing, its kind is unknown, or a value is refused.
    """
    # The kind first: validated as a union, one wrong key would be reported for each of the four kinds.
    data = config.read(path)
    kind = data.get("kind") if isinstance(data, dict) else None
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        cure = spelling.did_you_mean(str(kind), _KINDS).strip() or "Correct the configuration"
        raise errors.ConfigError.for_value(path, "kind", f"one of {', '.join(_KINDS)}", errors.quote_value(kind), cure)
    return config.parse(data, model, str(path))


def num_classes(data: Data) -> int | None:
    """Count of classes of a source; None where only its images can tell."""
    if isinstance(data, Digits | FashionMnist):
        return 10
    if data.classes == IMAGENET_1K:
        return 1000
    return len(data.classes) if data.classes is not None else None
