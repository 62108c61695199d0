"""Check images one by one and write the usable ones into new tars."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from teachonce.core import errors, progress
from teachonce.prepare import image_source, png, tar_writer
from teachonce.prepare.dataset_config import WrittenSource
from teachonce.prepare.image_source import ListedImage, ListedSource
from teachonce.shards import decode, index


def write_dataset(
    origin: ListedSource, rows: Mapping[str, Sequence[ListedImage]], data: WrittenSource, folder: Path, *, where: Path
) -> index.Index:
    """Write the planned rows and their index into `folder`.

    Args:
        origin: where the images are read.
        rows: the items of each split, in the order of rows.
        data: rows per tar, and what a bad image does.
        folder: receives the tars and the index.
        where: names the source in a refusal.

    Raises:
        DataError: images cannot be used and `on_bad_image` is `refuse`, or skipping them leaves a class without one.
    """
    total = sum(len(items) for items in rows.values())
    shardlist: list[index.Shard] = []
    with progress.bar(range(total), label="prepare", total=total, unit="image") as bar:
        checker = _Checker(origin, data.max_pixels, bar.update)
        for split in index.SPLITS:
            samples = checker.usable(rows[split])
            shardlist += tar_writer.write_samples(samples, folder, split=split, rows_per_tar=data.rows_per_tar)
    if checker.skipped and data.on_bad_image == "refuse":
        problems = [f"{bad.file} {bad.reason}" for bad in checker.skipped]
        raise errors.DataError(
            where,
            f"{len(problems):,} of {total:,} images cannot be used: {image_source.summarise_problems(problems)}",
            "Repair or remove them, or set on_bad_image: skip",
        )
    _refuse_emptied(rows, checker.skipped, origin.classes, where)
    return index.write(
        folder,
        base=folder,
        classes=origin.classes,
        rows_per_tar=data.rows_per_tar,
        shardlist=shardlist,
        skipped=checker.skipped,
    )


class _Checker:
    """Reads and decodes each image once."""

    def __init__(self, origin: ListedSource, max_pixels: int, step: Callable[[], object]) -> None:
        self.skipped: list[index.SkippedFile] = []
        self._origin = origin
        self._max_pixels = max_pixels
        self._step = step

    def usable(self, items: Sequence[ListedImage]) -> Iterator[tar_writer.EncodedImage]:
        """The usable images in order; the others are noted in `skipped`."""
        for item in items:
            try:
                yield self._sample(item)
            except errors.DataError as error:
                reason = f"{error.what}{error.cure and f'. {error.cure}'}"
                self.skipped.append(index.SkippedFile(file=item.name, reason=reason))
            self._step()

    def _sample(self, item: ListedImage) -> tar_writer.EncodedImage:
        try:
            data = self._origin.read(item.name)
        except OSError as error:
            raise errors.DataError(item.name, f"cannot be read ({error.strerror})") from error
        image = decode.rgb(data, item.name, self._max_pixels)
        extension = decode.detect_extension(data)
        if extension is None:
            # What WebDataset's readers would not know by its ending becomes a PNG of the same pixels.
            return tar_writer.EncodedImage(item.key, "png", png.encode_compressed(image), item.label)
        return tar_writer.EncodedImage(item.key, extension, data, item.label)


def _refuse_emptied(
    rows: Mapping[str, Sequence[ListedImage]], skipped: Sequence[index.SkippedFile], classes: Sequence[str], where: Path
) -> None:
    """Skipping may not empty a split, nor take the last training image of a class."""
    gone = {bad.file for bad in skipped}
    for split in index.SPLITS:
        if all(item.name in gone for item in rows[split]):
            raise errors.DataError(where, f"no image of {split} can be used", "Repair them")
    planned = {item.label for item in rows["train"]} - {index.UNLABELLED}
    left = Counter(item.label for item in rows["train"] if item.name not in gone)
    emptied = sorted(classes[label] for label in planned if not left[label])
    if emptied:
        raise errors.DataError(
            where,
            f"skipping leaves {len(emptied)} classes without a training image: "
            f"{image_source.summarise_problems(emptied)}",
            "Repair their images",
        )
