"""The prepare stage: any source of images into tars and an index."""

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


def prepare(data: Data, root: Path, out: Path, *, where: Path = Path("configs/dataset")) -> Mapping[str, object]:
    """Make the folder `out` from the images at `root`; it appears whole or not at all.

    Args:
        data: which source, classes and split.
        root: the source's folder; a path relative to the working directory keeps an adopted index movable.
        out: folder of the index and, unless tars are adopted, of the tars.
        where: file of `data`, for the message of a refusal.

    Returns:
        Deterministic facts: classes, skipped and ignored files, and samples (how many of them without a label), tars
        and bytes of each split.

    Raises:
        DataError: the source cannot be used as it is; the message says why.
        ConfigError: the configuration asks for more than the source has.
    """
    output = outputs.Output(out, _KIND, (source_folder(data, root),))
    output.require_replaceable()
    ignored = 0
    with output.draft() as draft:
        if isinstance(data, WebDataset):
            made = external_tars.build_index(data, root, draft)
        else:
            origin, val_fraction = _list(data, root)
            ignored = origin.ignored
            rows = split.assign_rows(origin, data, val_fraction, where=where)
            made = shard_writer.write_dataset(origin, rows, data, draft, where=root)
    return {
        "classes": len(made.classes),
        "skipped_files": len(made.skipped),
        "ignored_files": ignored,
        **{name: _facts(made, name) for name in index.SPLITS},
    }


def source_folder(data: Data, root: Path) -> Path | None:
    """The source's folder, where it is read: the built-in digits need none."""
    return None if isinstance(data, Digits) else root


def _list(data: WrittenSource, root: Path) -> tuple[ListedSource, float | None]:
    match data:
        case Digits():
            return digits.list_digits(), data.val_fraction
        case FashionMnist():
            return fashion_mnist.list_idx_files(root), None
        case ImageFolder():
            return image_folder.list_folder(data, root), data.val_fraction
        case _:
            raise TypeError(type(data))


def _facts(made: index.Index, name: str) -> dict[str, int]:
    shards = made.of_split(name)
    return {
        "samples": made.nsamples(name),
        "unlabelled": made.nsamples(name) - made.labelled(name),
        "tars": len(shards),
        "bytes": sum(shard.bytes for shard in shards),
    }
