"""What the images of a source are: counts by class and split, sizes, and what is odd about some of them."""

import hashlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from teachonce.core import config, errors, progress
from teachonce.prepare import dataset_config, image_folder, image_source, split
from teachonce.shards import decode, index
from teachonce.tools.init import source_layout

_MOST_DECODED = 1000
"""Images that are decoded; of more, so many at even distances are looked at, and the others are counted."""
_MOST_HASHED = 20_000
"""Images whose bytes are compared with one another."""
_TINY_PX = 32
_LARGE_PIXELS = 1_000_000
_STORED_SIDE_PX = 512
"""Longer side that large images are stored with: a crop of a quarter of it is still a view of 128 pixels."""
_SPLIT_SEEDS = 50


@dataclass(frozen=True, slots=True)
class LocatedImage:
    """An image of the source, not yet read."""

    split: str
    """`train` or `val`."""
    label: int
    """Position in the list of classes, or `index.UNLABELLED`."""
    name: str
    """Its name in the source."""
    source: bytes | Callable[[str], bytes]
    """The file's bytes, or what gives those of a name; OSError where it cannot."""

    def read(self) -> bytes:
        """The file's bytes; OSError where it cannot be read."""
        return self.source if isinstance(self.source, bytes) else self.source(self.name)

    def with_bytes(self, data: bytes) -> "LocatedImage":
        """The image with its bytes in hand."""
        return replace(self, source=data)


@dataclass(slots=True)
class Survey:
    """What was seen of the images."""

    classes: Sequence[str]
    """Class names in label order."""
    counts: dict[str, Counter[int]]
    """Images by label of each split."""
    capital_endings: int = 0
    """Images whose ending has capitals."""
    decoded: int = 0
    """Images that were looked at."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height of those, in pixels."""
    grey: int = 0
    """Those without colour."""
    bad: list[str] = field(default_factory=list)
    """What is wrong with those that cannot be used."""
    copies: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of images with the same bytes."""
    decode_s: float = 0.0
    """Mean seconds to read and decode an image here."""

    def total(self, split_name: str) -> int:
        """Images of a split."""
        return self.counts[split_name].total()

    def short_side(self) -> float:
        """Median of the shorter sides in pixels."""
        return statistics.median(min(size) for size in self.sizes)

    def are_large(self) -> bool:
        """Whether they have more than a megapixel on average, so that decoding them for every view would be slow."""
        return sum(width * height for width, height in self.sizes) > _LARGE_PIXELS * len(self.sizes)

    def shrink(self, side_px: int) -> None:
        """Expect images to be stored with a longer side of at most so many pixels: they are decoded sooner."""
        factors = [min(1.0, side_px / max(size)) for size in self.sizes]
        before = sum(width * height for width, height in self.sizes)
        after = sum(width * height * factor**2 for (width, height), factor in zip(self.sizes, factors, strict=True))
        self.decode_s *= after / before

    def tiny(self) -> int:
        """Images that were looked at and have a side below 32 pixels."""
        return sum(min(size) < _TINY_PX for size in self.sizes)


def survey_folder(layout: source_layout.Layout) -> tuple[source_layout.Layout, Survey]:
    """Look at the images of a folder; the layout then has the settings that hang on the images, too.

    Raises:
        DataError: the source cannot be used as it lies, for any reason that the stage `prepare` would give.
    """
    values = layout.values()
    settings = config.parse(values, dataset_config.ImageFolder, str(layout.root))
    listing = image_folder.list_folder(settings, layout.root)
    layout, settings = _with_split_seed(layout, settings, listing)
    rows = split.assign_rows(listing, settings, settings.val_fraction, where=layout.root)
    images = [
        LocatedImage(name, image.label, image.name, listing.read) for name in index.SPLITS for image in rows[name]
    ]
    survey = survey_images(listing.classes, images, _evenly(images, _MOST_DECODED))
    if survey.are_large():
        layout = layout.with_setting("max_side", _STORED_SIDE_PX, "the images are large, and each view decodes one")
        survey.shrink(_STORED_SIDE_PX)
    if survey.bad:
        reason = f"{len(survey.bad)} cannot be read; they are left out and listed in the index"
        layout = layout.with_setting("on_bad_image", "skip", reason)
    elif survey.decoded < len(images):
        opened = f"{survey.decoded:,} of {len(images):,} were opened"
        reason = f"{opened}; of the others, bad ones are left out and listed in the index"
        layout = layout.with_setting("on_bad_image", "skip", reason)
    return layout, survey


def _with_split_seed(
    layout: source_layout.Layout, settings: dataset_config.ImageFolder, listing: image_source.ListedSource
) -> tuple[source_layout.Layout, dataset_config.ImageFolder]:
    """The first seed of the split that leaves each class images to learn from and, where that can be, to measure on."""
    # The order of rows is by hash, not by class: of a class with a few images all may land on one side.
    if settings.val_fraction is None or settings.labels == "optional":
        return layout, settings
    reasons = {"train": "the first that gives every class images to learn from"}
    if _are_enough(settings.val_fraction, listing):
        reasons["val"] = f"{reasons['train']} and to measure on"
    split_name, reason = list(reasons.items())[-1]
    for seed in range(_SPLIT_SEEDS):
        seeded = settings.model_copy(update={"split_seed": seed})
        if _covers_classes(seeded, listing, layout.root, split_name):
            return layout.with_setting("split_seed", seed, reason), seeded
    return layout, settings


def _are_enough(val_fraction: float, listing: image_source.ListedSource) -> bool:
    images = listing.splits[image_source.UNSPLIT]
    counts = Counter(image.label for image in images)
    return min(counts.values()) > 1 and round(len(images) * val_fraction) >= len(listing.classes)


def _covers_classes(
    settings: dataset_config.ImageFolder, listing: image_source.ListedSource, root: Path, split_name: str
) -> bool:
    """Whether a split has an image of each class; the training split has one of each wherever there is no refusal."""
    try:
        rows = split.assign_rows(listing, settings, settings.val_fraction, where=root)
    except errors.DataError:
        return False
    return len({image.label for image in rows[split_name]}) == len(listing.classes)


def _evenly(images: Sequence[LocatedImage], most: int) -> Sequence[LocatedImage]:
    return images[:: max(1, -(-len(images) // most))]


def survey_images(classes: Sequence[str], images: Sequence[LocatedImage], chosen: Sequence[LocatedImage]) -> Survey:
    """Count the images, and look at some of them.

    Args:
        classes: names in label order.
        images: of both splits.
        chosen: those that are opened.
    """
    survey = Survey(classes, {name: Counter() for name in index.SPLITS})
    for image in images:
        survey.counts[image.split][image.label] += 1
        survey.capital_endings += (ending := Path(image.name).suffix) != ending.lower()
    # The bytes of a tar's images are in hand for the chosen ones alone.
    _compare_bytes(survey, _evenly([image for image in images if image.source], _MOST_HASHED) or chosen)
    start_s = time.perf_counter()
    for image in progress.bar(chosen, label="look", total=len(chosen), unit="image"):
        _look(survey, image)
    survey.decode_s = (time.perf_counter() - start_s) / max(1, len(chosen))
    return survey


def _look(survey: Survey, image: LocatedImage) -> None:
    survey.decoded += 1
    try:
        pixels = decode.rgb_pixels(image.read(), image.name)
    except OSError as error:
        survey.bad.append(f"{image.name} cannot be read ({error.strerror})")
    except errors.DataError as error:
        survey.bad.append(str(error).removesuffix(f". {error.cure}"))
    else:
        survey.sizes.append((pixels.shape[1], pixels.shape[0]))
        survey.grey += bool(
            np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 1], pixels[..., 2])
        )


def _compare_bytes(survey: Survey, images: Iterable[LocatedImage]) -> None:
    first_by_digest: dict[bytes, LocatedImage] = {}
    for image in images:
        try:
            data = image.read()
        except OSError:
            continue  # told of where it is decoded
        digest = hashlib.sha256(data).digest()
        first = first_by_digest.setdefault(digest, image)
        if first is not image:
            survey.copies.append((f"{first.split}: {first.name}", f"{image.split}: {image.name}"))
