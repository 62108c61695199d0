"""Adopt WebDataset tars where they lie: read each once, check every row, write only an index."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.base import errors, progress
from pipeline.prepare import classes, source
from pipeline.prepare.config import WebDataset
from pipeline.shards import decode, index, read

_KEPT = 10
_MOST_CLASSES = 1_000_000
"""A label above this is taken for damage where no list of classes says what is right."""


def adopt(data: WebDataset, root: Path, folder: Path) -> index.Index:
    """Write the index of the tars below `root` into `folder`.

    Raises:
        DataError: no tar matches, a tar is damaged or matched twice, an image cannot be decoded, a label is outside the
            classes or missing where it is required, a class has no training image, or two rows have one key.
    """
    tars = list(_tars(data, root))
    names = classes.given(data.classes)
    check = _Check(data, _MOST_CLASSES if names is None else len(names))
    shardlist = []
    for split, path in progress.bar(tars, label="prepare", total=len(tars), unit="tar"):
        check.begin(split, path.relative_to(root).as_posix())
        shardlist.append(read.measured(path, url=check.url, split=split, visit=check.see))
    check.refuse(root)
    if names is None:
        names = tuple(str(label) for label in range(check.count()))
    if not data.allow_empty_classes and data.labels == "required":
        source.refuse_empty(root, names, check.train_counts(names))
    rows_per_tar = max(shard.nsamples for shard in shardlist)
    return index.write(folder, base=root, classes=names, rows_per_tar=rows_per_tar, shardlist=shardlist)


class _Check:
    """What is known of the rows read so far, and what is wrong with them."""

    def __init__(self, data: WebDataset, classes_count: int) -> None:
        self.url = ""
        self._split = ""
        self._max_pixels = data.max_pixels
        self._optional = data.labels == "optional"
        self._classes_count = classes_count
        self._labels: dict[str, Counter[int]] = {split: Counter() for split in index.SPLITS}
        self._urls: dict[str, str] = {}
        self._bad: list[str] = []
        self._bad_count = 0

    def begin(self, split: str, url: str) -> None:
        """Say which tar the next rows come from."""
        self.url, self._split = url, split

    def see(self, sample: read.Sample) -> None:
        """Check one row."""
        name = f"{self.url}: {sample.key}"
        if sample.key in self._urls:
            self._report(f"{name} is also a key of {self._urls[sample.key]}")
        self._urls[sample.key] = self.url
        if sample.label == index.UNLABELLED:
            if not self._optional:
                self._report(f"{name} has no label (.cls), which labels: optional in configs/data would allow")
        elif sample.label < self._classes_count:
            self._labels[self._split][sample.label] += 1
        else:
            self._report(f"{name} has label {sample.label}, but labels end at {self._classes_count - 1}")
        try:
            decode.rgb(sample.image, name, self._max_pixels)
        except errors.DataError as error:
            self._report(str(error))

    def refuse(self, root: Path) -> None:
        """Raise for what `see` found."""
        if self._bad_count:
            raise errors.DataError(
                f"{root}: {self._bad_count:,} rows cannot be used: {source.first(self._bad, self._bad_count)}. "
                "Write the tars again without them"
            )

    def count(self) -> int:
        """Classes up to the highest label of any split."""
        return 1 + max(label for counter in self._labels.values() for label in counter)

    def train_counts(self, names: Sequence[str]) -> list[int]:
        """Training images of each class."""
        return [self._labels["train"][label] for label in range(len(names))]

    def _report(self, problem: str) -> None:
        self._bad_count += 1
        if len(self._bad) < _KEPT:
            self._bad.append(problem)


def _tars(data: WebDataset, root: Path) -> Iterator[tuple[str, Path]]:
    seen: dict[Path, str] = {}
    for split, globs in (("train", data.train), ("val", data.val)):
        for glob in globs:
            paths = sorted(path for path in root.glob(glob) if path.is_file())
            if not paths:
                raise errors.DataError(
                    errors.refusal(root, split, "globs that each match a tar", glob, f"List the tars: ls {root}")
                )
            for path in paths:
                if path in seen:
                    raise errors.DataError(
                        f"{path}: is matched twice, by {seen[path]} and by {split}: {glob}. Correct the globs"
                    )
                seen[path] = f"{split}: {glob}"
                yield split, path
