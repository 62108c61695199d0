"""A source of images as the rest of this stage sees it: names and labels, and a function that reads an image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from teachonce.core import errors

UNSPLIT = "all"
"""Key in `ListedSource.splits` of the images of a source that has no split of its own."""
_MAX_LISTED = 10
"""Problems that a message lists; the others are counted."""


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image that is known by name and not yet read."""

    key: str
    """Its key in the data set, unique within it: the hash of a view starts from it."""
    label: int
    """Position in the list of classes, or `index.UNLABELLED`."""
    name: str
    """Its name in the source: what `ListedSource.read` takes and a refusal shows."""


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A listed source: names are in memory, images are not."""

    classes: Sequence[str]
    """Class names in label order."""
    splits: Mapping[str, Sequence[ListedImage]]
    """Either `train` and `val`, or `UNSPLIT` alone."""
    read: Callable[[str], bytes]
    """Gives the encoded image of a `ListedImage.name`; OSError where it cannot be read."""
    ignored: int = 0
    """Files that are not images by their name."""


def summarise_problems(problems: Sequence[str], count: int | None = None) -> str:
    """The first ten of a list of problems and how many more there are, in one line."""
    count = len(problems) if count is None else count
    more = f"; and {count - _MAX_LISTED:,} more" if count > _MAX_LISTED else ""
    return "; ".join(problems[:_MAX_LISTED]) + more


def refuse_empty_classes(
    where: object,
    classes: Sequence[str],
    counts: Sequence[int],
    cure: str = "Add images, correct classes, or set allow_empty_classes: true",
) -> None:
    """Refuse a source some of whose classes have no training image.

    Args:
        where: the source or configuration, for the message.
        classes: names in label order.
        counts: training images of each.
        cure: what helps, for the message.

    Raises:
        DataError: a count is zero; the message lists the classes.
    """
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise errors.DataError(
            where, f"{len(empty)} of {len(classes)} classes have no training image: {summarise_problems(empty)}", cure
        )
