"""Index WebDataset tars where they lie: read each once, check every row, write nothing but the index."""

import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from teachonce.core import errors, progress
from teachonce.prepare import class_names, image_source
from teachonce.prepare.dataset_config import WebDataset
from teachonce.shards import decode, index, sample_keys, sample_reader

_MAX_LISTED = 10
"""Problems that a message lists; the others are counted."""
_RENAME = "Write that tar again with keys that differ, in UTF-8 and without control characters"
_MOST_CLASSES = 1_000_000
"""A label above this is taken for damage where no list of classes says what is right."""


def build_index(settings: WebDataset, root: Path, folder: Path) -> index.Index:
    """Write the index of the tars below `root` into `folder`.

    Tars may number their rows alike: a row's identity is (tar, row, key).

    Raises:
        DataError: no tar matches, a tar is damaged or comes twice, an image cannot be decoded, a label is outside the
            classes or missing where it is required, a class has no training image, or two rows of a tar have one key.
    """
    tars = list(_matched_tars(settings, root))
    names = class_names.from_config(settings.classes)
    checker = _RowChecker(settings, _MOST_CLASSES if names is None else len(names))
    shards: dict[str, index.Shard] = {}
    for split, path in progress.bar(tars, label="prepare", total=len(tars), unit="tar"):
        checker.start_tar(split, path.relative_to(root).as_posix())
        shard = sample_reader.index_tar(path, url=checker.url, split=split, visit=checker.check_sample)
        # By sha256: a cache finds a tar's rows by it, so that two copies would be one tar to it, with twice the images.
        other = shards.setdefault(shard.sha256, shard)
        if other is not shard:
            raise errors.DataError(path, f"is a copy of {other.split}: {other.url}", "Remove one, or correct the globs")
    checker.raise_if_any(root)
    if names is None:
        names = _number_classes(root, checker.count())
    if not settings.allow_empty_classes and settings.labels == "required":
        image_source.refuse_empty_classes(root, names, checker.train_counts(names))
    # A cache reserves so many rows for each tar, for good: the longest tar decides.
    shardlist = list(shards.values())
    rows_per_tar = max(shard.nsamples for shard in shardlist)
    return index.write(folder, base=root, classes=names, rows_per_tar=rows_per_tar, shardlist=shardlist)


def _number_classes(root: Path, count: int) -> tuple[str, ...]:
    if count == 1:
        raise errors.DataError(
            root,
            "all labels are 0: there is nothing to tell apart",
            "Correct the labels (.cls), or, if one class is meant, name it in classes",
        )
    return tuple(str(label) for label in range(count))


class _RowChecker:
    """Checks rows one after the other, and collects what is wrong, so that one run lists all problems."""

    def __init__(self, settings: WebDataset, classes_count: int) -> None:
        self.url = ""
        self._split = ""
        self._max_pixels = settings.max_pixels
        self._optional = settings.labels == "optional"
        self._classes_count = classes_count
        self._labels: dict[str, Counter[int]] = {split: Counter() for split in index.SPLITS}
        self._keys: set[str] = set()
        self._problems: list[str] = []
        self._problem_count = 0
        self._cures: dict[str, None] = {}

    def start_tar(self, split: str, url: str) -> None:
        """Set the tar that the next rows come from; keys must differ within a tar only."""
        self.url, self._split = url, split
        self._keys = set()

    def check_sample(self, sample: sample_reader.Sample) -> None:
        """Check key, label and image of a row.

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
        self._check_label(name, sample.label)
        # Each image is decoded now: a bad one cannot be left out later, since a row is known by its position in the
        # tar.
        try:
            decode.rgb(sample.image, name, self._max_pixels)
        except errors.DataError as error:
            self._report(str(error), "Write the tar again without the unusable images")

    def _check_label(self, name: str, label: int) -> None:
        if label == index.UNLABELLED:
            if not self._optional:
                self._report(f"{name} has no label (.cls)", "Set labels: optional, or write the tar again with labels")
        elif label < self._classes_count:
            self._labels[self._split][label] += 1
        else:
            last = self._classes_count - 1
            self._report(f"{name} has label {label}, but labels end at {last}", "Correct classes, or the labels")

    def raise_if_any(self, root: Path) -> None:
        """Refuse the source where `check_sample` met a problem.

        Raises:
            DataError: lists the first problems, with what helps against each kind.
        """
        if self._problem_count:
            raise errors.DataError(
                root,
                f"{self._problem_count:,} rows cannot be used: "
                f"{image_source.summarise_problems(self._problems, self._problem_count)}",
                ". ".join(self._cures),
            )

    def count(self) -> int:
        """Count of classes: one more than the highest label of any split."""
        return 1 + max(label for counter in self._labels.values() for label in counter)

    def train_counts(self, names: Sequence[str]) -> list[int]:
        """Count of training images of each class, in label order."""
        return [self._labels["train"][label] for label in range(len(names))]

    def _report(self, problem: str, cure: str) -> None:
        self._problem_count += 1
        self._cures[cure] = None
        if len(self._problems) < _MAX_LISTED:
            self._problems.append(problem)


def _matched_tars(settings: WebDataset, root: Path) -> Iterator[tuple[str, Path]]:
    patterns_by_file: dict[tuple[int, int], str] = {}
    for split, globs in (("train", settings.train), ("val", settings.val)):
        for glob in globs:
            paths = sorted(path for path in root.glob(glob) if not path.is_dir())
            if not paths:
                raise errors.DataError.for_value(
                    root, split, "globs that each match a tar", glob, f"List the tars: ls {root}"
                )
            for path in paths:
                matched_by = f"{split}: {path.relative_to(root).as_posix()}, by {glob}"
                # Two globs may match one file, also by a link: read twice, its images would count twice.
                other = patterns_by_file.setdefault(_file_identity(path), matched_by)
                if other is not matched_by:
                    raise errors.DataError(
                        root, f"one tar is matched twice, {other}, and {matched_by}", "Correct the globs"
                    )
                yield split, path


def _file_identity(path: Path) -> tuple[int, int]:
    """Device and inode: the same for all names and links of one file.

    Raises:
        DataError: it is no regular file, or not there.
    """
    name = sample_keys.printable_name(str(path))
    try:
        stat_result = path.stat()
    except OSError as error:
        raise errors.DataError(name, f"cannot be read ({error.strerror})", "Correct the link, or the globs") from error
    if not stat.S_ISREG(stat_result.st_mode):
        raise errors.DataError(name, "is no regular file", "Correct the globs")
    if fault := sample_keys.name_fault(str(path)):
        raise errors.DataError(name, f"its name {fault}", sample_keys.fault_cure([fault]))
    return stat_result.st_dev, stat_result.st_ino
