"""Which images go into which split, and in which order."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.core import errors, hashing
from teachonce.prepare.dataset_config import ImageFolder, WrittenSource
from teachonce.prepare.image_source import UNSPLIT, ListedImage, ListedSource, refuse_empty_classes


def assign_rows(
    source: ListedSource, data: WrittenSource, val_fraction: float | None, *, where: Path
) -> dict[str, Sequence[ListedImage]]:
    """The rows of train and val, in the order in which they are written.

    One order by hash of (split_seed, key) decides everything: its first round(count × val_fraction) items are val, the
    rest train, and a cap takes the first of a split. So the tars mix the classes, and raising a cap only appends rows.

    Args:
        source: all items.
        data: what is taken of them.
        val_fraction: part held out, where the source has no split of its own.
        where: file of the settings, for the message.

    Raises:
        DataError: a split would be empty, or a class without a training image.
        ConfigError: a cap is larger than its split.
    """
    parts = {name: shuffle_by_hash(items, data.split_seed) for name, items in source.parts.items()}
    if val_fraction is not None:
        items = parts[UNSPLIT]
        count = round(len(items) * val_fraction)
        parts = {"train": items[count:], "val": items[:count]}
    rows: dict[str, Sequence[ListedImage]] = {
        "train": _capped(parts["train"], data.train_images, "train", where),
        "val": _capped(parts["val"], data.val_images, "val", where),
    }
    if data.requires_all_classes:
        present = {item.label for item in rows["train"]}
        allowed = ", or set allow_empty_classes: true" if isinstance(data, ImageFolder) else ""
        cure = f"Raise train_images, lower val_fraction, add images{allowed}"
        refuse_empty_classes(where, source.classes, [label in present for label in range(len(source.classes))], cure)
    return rows


def shuffle_by_hash(items: Sequence[ListedImage], split_seed: int) -> list[ListedImage]:
    """Items sorted by the hash of (split_seed, key): a shuffle in which an item's place depends on no other item."""
    return sorted(items, key=lambda item: (hashing.seed64("prepare", split_seed, item.key), item.key))


def _capped(items: list[ListedImage], cap: int | None, split: str, where: Path) -> list[ListedImage]:
    if not items:
        raise errors.DataError(where, f"leaves no image for {split}", "Correct val_fraction, or add images")
    if cap is not None and cap > len(items):
        raise errors.ConfigError.for_value(where, f"{split}_images", f"at most {len(items):,}", f"{cap:,}", "Lower it")
    return items[:cap]
