"""Adopt WebDataset tars where they lie: read each once, check every row, write only an index."""

import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from teachonce.core import errors, progress
from teachonce.prepare import class_names, image_source
from teachonce.prepare.dataset_config import WebDataset
from teachonce.shards import decode, index, sample_keys, sample_reader

_KEPT = 10
_RENAME = "Write that tar again with keys that differ, in UTF-8 and without control characters"
_MOST_CLASSES = 1_000_000
"""A label above this is taken for damage where no list of classes says what is right."""


def build_index(data: WebDataset, root: Path, folder: Path) -> index.Index:
    """Write the index of the tars below `root` into `folder`.

    Tars may number their rows alike: a row's identity is (tar, row, key).

    Raises:
        DataError: no tar matches, a tar is damaged or comes twice, an image cannot be decoded, a label is outside the
            classes or missing where it is required, a class has no training image, or two rows of a tar have one key.
    """
    tars = list(_tars(data, root))
    names = class_names.from_config(data.classes)
    check = _Check(data, _MOST_CLASSES if names is None else len(names))
    shards: dict[str, index.Shard] = {}
    for split, path in progress.bar(tars, label="prepare", total=len(tars), unit="tar"):
        check.begin(split, path.relative_to(root).as_posix())
        shard = sample_reader.index_tar(path, url=check.url, split=split, visit=check.see)
        other = shards.setdefault(shard.sha256, shard)
        if other is not shard:
            raise errors.DataError(path, f"is a copy of {other.split}: {other.url}", "Remove one, or correct the globs")
    check.refuse(root)
    if names is None:
        names = _numbered(root, check.count())
    if not data.allow_empty_classes and data.labels == "required":
        image_source.refuse_empty_classes(root, names, check.train_counts(names))
    shardlist = list(shards.values())
    rows_per_tar = max(shard.nsamples for shard in shardlist)
    return index.write(folder, base=root, classes=names, rows_per_tar=rows_per_tar, shardlist=shardlist)


def _numbered(root: Path, count: int) -> tuple[str, ...]:
    if count == 1:
        raise errors.DataError(
            root,
            "all labels are 0: there is nothing to tell apart",
            "Correct the labels (.cls), or, if one class is meant, name it in classes",
        )
    return tuple(str(label) for label in range(count))


class _Check:
    """What is known of the rows read so far, and what is wrong with them."""

    def __init__(self, data: WebDataset, classes_count: int) -> None:
        self.url = ""
        self._split = ""
        self._max_pixels = data.max_pixels
        self._optional = data.labels == "optional"
        self._classes_count = classes_count
        self._labels: dict[str, Counter[int]] = {split: Counter() for split in index.SPLITS}
        self._keys: set[str] = set()
        self._bad: list[str] = []
        self._bad_count = 0
        self._cures: dict[str, None] = {}

    def begin(self, split: str, url: str) -> None:
        """Say which tar the next rows come from."""
        self.url, self._split = url, split
        self._keys = set()

    def see(self, sample: sample_reader.Sample) -> None:
        """Check one row.

        Raises:
            DataError: its key cannot be stored; the tar's list of keys has no digest.
        """
        if fault := sample_keys.name_fault(sample.key):
            raise errors.DataError(
                self.url, f"key of row {sample.row} {fault}: {sample_keys.printable_name(sample.key)}", _RENAME
            )
        name = f"{self.url}: {sample.key}"
        if sample.key in self._keys:
            self._report(f"{name} is a key twice in this tar", _RENAME)
        self._keys.add(sample.key)
        self._see_label(name, sample.label)
        try:
            decode.rgb(sample.image, name, self._max_pixels)
        except errors.DataError as error:
            self._report(str(error), "Write the tar again without the unusable images")

    def _see_label(self, name: str, label: int) -> None:
        if label == index.UNLABELLED:
            if not self._optional:
                self._report(f"{name} has no label (.cls)", "Set labels: optional, or write the tar again with labels")
        elif label < self._classes_count:
            self._labels[self._split][label] += 1
        else:
            last = self._classes_count - 1
            self._report(f"{name} has label {label}, but labels end at {last}", "Correct classes, or the labels")

    def refuse(self, root: Path) -> None:
        """Raise for what `see` found."""
        if self._bad_count:
            raise errors.DataError(
                root,
                f"{self._bad_count:,} rows cannot be used: "
                f"{image_source.summarise_problems(self._bad, self._bad_count)}",
                ". ".join(self._cures),
            )

    def count(self) -> int:
        """Classes up to the highest label of any split."""
        return 1 + max(label for counter in self._labels.values() for label in counter)

    def train_counts(self, names: Sequence[str]) -> list[int]:
        """Training images of each class."""
        return [self._labels["train"][label] for label in range(len(names))]

    def _report(self, problem: str, cure: str) -> None:
        self._bad_count += 1
        self._cures[cure] = None
        if len(self._bad) < _KEPT:
            self._bad.append(problem)


def _tars(data: WebDataset, root: Path) -> Iterator[tuple[str, Path]]:
    seen: dict[tuple[int, int], str] = {}
    for split, globs in (("train", data.train), ("val", data.val)):
        for glob in globs:
            paths = sorted(path for path in root.glob(glob) if not path.is_dir())
            if not paths:
                raise errors.DataError.for_value(
                    root, split, "globs that each match a tar", glob, f"List the tars: ls {root}"
                )
            for path in paths:
                where = f"{split}: {path.relative_to(root).as_posix()}, by {glob}"
                other = seen.setdefault(_place(path), where)
                if other is not where:
                    raise errors.DataError(root, f"one tar is matched twice, {other}, and {where}", "Correct the globs")
                yield split, path


def _place(path: Path) -> tuple[int, int]:
    """What tells a file from every other, by whatever names.

    Raises:
        DataError: it is no regular file, or not there.
    """
    name = sample_keys.printable_name(str(path))
    try:
        state = path.stat()
    except OSError as error:
        raise errors.DataError(name, f"cannot be read ({error.strerror})", "Correct the link, or the globs") from error
    if not stat.S_ISREG(state.st_mode):
        raise errors.DataError(name, "is no regular file", "Correct the globs")
    if fault := sample_keys.name_fault(str(path)):
        raise errors.DataError(name, f"its name {fault}", sample_keys.fault_cure([fault]))
    return state.st_dev, state.st_ino
