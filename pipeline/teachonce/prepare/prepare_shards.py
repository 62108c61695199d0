"""The stage `prepare`: any source of images into a folder with an index and, but for tars that exist, tars."""

import re
from collections.abc import Mapping
from pathlib import Path

from teachonce.core import outputs
from teachonce.prepare import digits, external_tars, fashion_mnist, image_folder, shard_writer, split
from teachonce.prepare.dataset_config import Data, Digits, FashionMnist, ImageFolder, WebDataset, WrittenSource
from teachonce.prepare.image_source import ListedSource
from teachonce.shards import index

_KIND = outputs.FolderKind(
    "made by this stage", index.NAME, b'"rows_per_tar"', re.compile(rf"({'|'.join(index.SPLITS)})-\d+\.tar")
)


def prepare(settings: Data, root: Path, out: Path, *, where: Path = Path("configs/dataset")) -> Mapping[str, object]:
    """Make the folder `out` from the images below `root`; it appears whole or not at all.

    Args:
        settings: which source, classes and split.
        root: the source's folder; a path relative to the working directory keeps an adopted index movable.
        out: folder of the index and, unless tars are adopted, of the tars.
        where: file of `settings`, for the message of a refusal.

    Returns:
        Deterministic facts: classes, skipped and ignored files, and samples (how many of them without a label), tars
        and bytes of each split.

    Raises:
        DataError: the source cannot be used as it is; the message says why.
        ConfigError: the configuration asks for more than the source has.
    """
    output = outputs.Output(out, _KIND, (source_folder(settings, root),))
    output.require_replaceable()
    ignored = 0
    with output.draft() as draft:
        if isinstance(settings, WebDataset):
            shard_index = external_tars.build_index(settings, root, draft)
        else:
            source, val_fraction = _list_source(settings, root)
            ignored = source.ignored
            rows = split.assign_rows(source, settings, val_fraction, where=where)
            shard_index = shard_writer.write_dataset(source, rows, settings, draft, where=root)
    return {
        "classes": len(shard_index.classes),
        "skipped_files": len(shard_index.skipped),
        "ignored_files": ignored,
        **{name: _facts(shard_index, name) for name in index.SPLITS},
    }


def source_folder(settings: Data, root: Path) -> Path | None:
    """The source's folder, where it is read: the built-in digits need none."""
    return None if isinstance(settings, Digits) else root


def _list_source(settings: WrittenSource, root: Path) -> tuple[ListedSource, float | None]:
    match settings:
        case Digits():
            return digits.list_digits(), settings.val_fraction
        case FashionMnist():
            return fashion_mnist.list_idx_files(root), None
        case ImageFolder():
            return image_folder.list_folder(settings, root), settings.val_fraction
        case _:
            raise TypeError(type(settings))


def _facts(shard_index: index.Index, name: str) -> dict[str, int]:
    shards = shard_index.of_split(name)
    return {
        "samples": shard_index.nsamples(name),
        "unlabelled": shard_index.nsamples(name) - shard_index.labelled(name),
        "tars": len(shards),
        "bytes": sum(shard.bytes for shard in shards),
    }
