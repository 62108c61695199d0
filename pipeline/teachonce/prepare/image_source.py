"""What a source of images looks like to the rest of prepare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from teachonce.core import errors

UNSPLIT = "all"
"""Name of the one part of a source that has no split of its own."""
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image that is known by name and not yet read."""

    key: str
    """Its name in the data set."""
    label: int
    """Position in the list of classes, or `index.UNLABELLED`."""
    name: str
    """Its name in the source: what `Source.read` takes and a refusal shows."""


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A listed source: names are in memory, images are not."""

    classes: Sequence[str]
    """Class names in label order."""
    parts: Mapping[str, Sequence[ListedImage]]
    """Either `train` and `val`, or `UNSPLIT` alone."""
    read: Callable[[str], bytes]
    """The encoded image of an item's name; OSError where it cannot be read."""
    ignored: int = 0
    """Files that are not images by their name."""


def summarise_problems(problems: Sequence[str], count: int | None = None) -> str:
    """The first ten of a list of problems and how many more there are, in one line."""
    count = len(problems) if count is None else count
    more = f"; and {count - _SHOWN:,} more" if count > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + more


def refuse_empty_classes(
    where: object,
    classes: Sequence[str],
    counts: Sequence[int],
    cure: str = "Add images, correct classes, or set allow_empty_classes: true",
) -> None:
    """Refuse classes without a training image.

    Args:
        where: that is so.
        classes: their names.
        counts: training images of each.
        cure: what helps.

    Raises:
        DataError: a count is zero; the message lists the classes.
    """
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise errors.DataError(
            where, f"{len(empty)} of {len(classes)} classes have no training image: {summarise_problems(empty)}", cure
        )
