"""Decode images one by one, and write those that can be decoded into new tars."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from teachonce.core import errors, progress
from teachonce.prepare import encode, image_source, tar_writer
from teachonce.prepare.dataset_config import WrittenSource
from teachonce.prepare.image_source import ListedImage, ListedSource
from teachonce.shards import decode, index


def write_dataset(
    source: ListedSource,
    rows: Mapping[str, Sequence[ListedImage]],
    settings: WrittenSource,
    folder: Path,
    *,
    where: Path,
) -> index.Index:
    """Write the planned rows and their index into `folder`.

    Args:
        source: where the images are read.
        rows: the images of each split, in the order of rows.
        settings: rows per tar, the largest side, and what a bad image does.
        folder: receives the tars and the index.
        where: names the source in a refusal.

    Raises:
        DataError: images cannot be used and `on_bad_image` is `refuse`, or skipping them leaves a class without one.
    """
    total = sum(len(images) for images in rows.values())
    shardlist: list[index.Shard] = []
    with progress.bar(range(total), label="prepare", total=total, unit="image") as bar:
        checker = _Checker(source, settings, bar.update)
        for split in index.SPLITS:
            samples = checker.usable(rows[split])
            shardlist += tar_writer.write_samples(samples, folder, split=split, rows_per_tar=settings.rows_per_tar)
    # Only after all images: one run names every bad one, instead of one in each run.
    if checker.skipped and settings.on_bad_image == "refuse":
        problems = [f"{skipped_file.file} {skipped_file.reason}" for skipped_file in checker.skipped]
        raise errors.DataError(
            where,
            f"{len(problems):,} of {total:,} images cannot be used: {image_source.summarise_problems(problems)}",
            "Repair or remove them, or set on_bad_image: skip",
        )
    _require_images_left(rows, checker.skipped, source.classes, where)
    return index.write(
        folder,
        base=folder,
        classes=source.classes,
        rows_per_tar=settings.rows_per_tar,
        shardlist=shardlist,
        skipped=checker.skipped,
    )


class _Checker:
    """Reads and decodes each image once, and collects those that cannot be used."""

    def __init__(self, source: ListedSource, settings: WrittenSource, advance: Callable[[], object]) -> None:
        self.skipped: list[index.SkippedFile] = []
        self._source = source
        self._settings = settings
        self._advance = advance

    def usable(self, images: Sequence[ListedImage]) -> Iterator[tar_writer.EncodedImage]:
        """The usable images in order, encoded; the others go to `skipped`."""
        for image in images:
            try:
                yield self._encode(image)
            except errors.DataError as error:
                reason = f"{error.what}{error.cure and f'. {error.cure}'}"
                self.skipped.append(index.SkippedFile(file=image.name, reason=reason))
            self._advance()

    def _encode(self, listed: ListedImage) -> tar_writer.EncodedImage:
        try:
            encoded = self._source.read(listed.name)
        except OSError as error:
            raise errors.DataError(listed.name, f"cannot be read ({error.strerror})") from error
        # Decoded here, where a bad image can still be left out: later it would stop a teacher or a student.
        image = decode.rgb(encoded, listed.name, self._settings.max_pixels)
        extension = decode.detect_extension(encoded)
        max_side = self._settings.max_side or max(image.size)
        is_large = max(image.size) > max_side
        if is_large:
            image = encode.smaller(image, max_side)
        if is_large and extension == "jpg":
            encoded = encode.jpeg(image)
        elif is_large or extension is None:
            # A PNG is what WebDataset's readers know by its ending, and loses nothing more.
            extension, encoded = "png", encode.png(image)
        return tar_writer.EncodedImage(listed.key, extension, encoded, listed.label)


def _require_images_left(
    rows: Mapping[str, Sequence[ListedImage]], skipped: Sequence[index.SkippedFile], classes: Sequence[str], where: Path
) -> None:
    """Refuse what skipping leaves: an empty split, or a class that has lost its last training image."""
    # Counts were checked before any image was read; what skipping takes from a class shows only now.
    skipped_names = {skipped_file.file for skipped_file in skipped}
    for split in index.SPLITS:
        if all(image.name in skipped_names for image in rows[split]):
            raise errors.DataError(where, f"no image of {split} can be used", "Repair them")
    planned_labels = {image.label for image in rows["train"]} - {index.UNLABELLED}
    left_by_label = Counter(image.label for image in rows["train"] if image.name not in skipped_names)
    emptied = sorted(classes[label] for label in planned_labels if not left_by_label[label])
    if emptied:
        raise errors.DataError(
            where,
            f"skipping leaves {len(emptied)} classes without a training image: "
            f"{image_source.summarise_problems(emptied)}",
            "Repair their images",
        )
