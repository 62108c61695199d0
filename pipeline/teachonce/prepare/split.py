"""Which images go into which split, and in which order."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.core import errors, hashing
from teachonce.prepare.dataset_config import ImageFolder, WrittenSource
from teachonce.prepare.image_source import UNSPLIT, ListedImage, ListedSource, refuse_empty_classes


def assign_rows(
    source: ListedSource, settings: WrittenSource, val_fraction: float | None, *, where: Path
) -> dict[str, Sequence[ListedImage]]:
    """The rows of train and val, in the order in which they are written.

    One order by hash of (split_seed, key) decides everything: its first round(count × val_fraction) images are val, the
    rest train, and a cap takes the first of a split. So the tars mix the classes, and raising a cap only appends rows.

    Args:
        source: all images.
        settings: the seed of the order, and how many images to take.
        val_fraction: share held out for validation; None where the source has a split of its own.
        where: file of the settings, for the message of a refusal.

    Raises:
        DataError: a split would be empty, or a class without a training image.
        ConfigError: a cap is larger than its split.
    """
    splits = {name: shuffle_by_hash(images, settings.split_seed) for name, images in source.splits.items()}
    if val_fraction is not None:
        # Cut before the caps are applied: raising train_images never moves an image from one split into the other.
        images = splits[UNSPLIT]
        count = round(len(images) * val_fraction)
        splits = {"train": images[count:], "val": images[:count]}
    rows: dict[str, Sequence[ListedImage]] = {
        "train": _capped(splits["train"], settings.train_images, "train", where),
        "val": _capped(splits["val"], settings.val_images, "val", where),
    }
    if settings.requires_all_classes:
        present_labels = {image.label for image in rows["train"]}
        allowance = ", or set allow_empty_classes: true" if isinstance(settings, ImageFolder) else ""
        cure = f"Raise train_images, lower val_fraction, add images{allowance}"
        refuse_empty_classes(
            where, source.classes, [label in present_labels for label in range(len(source.classes))], cure
        )
    return rows


def shuffle_by_hash(images: Sequence[ListedImage], split_seed: int) -> list[ListedImage]:
    """Images sorted by the hash of (split_seed, key)."""
    # A generator's shuffle would put all images into another order when one is added. By the hash of its own key, an
    # image keeps its place among the others, in any NumPy release.
    return sorted(images, key=lambda image: (hashing.seed64("prepare", split_seed, image.key), image.key))


def _capped(images: list[ListedImage], cap: int | None, split: str, where: Path) -> list[ListedImage]:
    if not images:
        raise errors.DataError(where, f"leaves no image for {split}", "Correct val_fraction, or add images")
    if cap is not None and cap > len(images):
        raise errors.ConfigError.for_value(where, f"{split}_images", f"at most {len(images):,}", f"{cap:,}", "Lower it")
    return images[:cap]
