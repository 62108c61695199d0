"""WebDataset tars that someone has: which are to learn from, which to measure on, and what their labels mean."""

import glob
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import errors, progress
from teachonce.prepare import dataset_config, split_names
from teachonce.shards import index, sample_reader
from teachonce.tools.init import image_survey, json_labels, source_layout

_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
_CLASS_FILES = ("classes.txt", "class_names.txt", "labels.txt", "names.txt")
_MOST_BYTES = 2_000_000_000
"""Of the tars that are read; of more, the first ones of each split are looked at."""
_MOST_KEPT = 1000
_MOST_NAMED = 4
_MOST_CLASS_BYTES = 1 << 20


def is_of_tars(folder: Path) -> bool:
    """Whether a folder holds tars, in itself or one folder deeper.

    Raises:
        DataError: it holds compressed ones, which cannot be read at any place.
    """
    paths = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if not path.name.startswith(".")]
    packed = [path.name for path in paths if path.name.lower().endswith(_COMPRESSED)]
    is_there = any(path.suffix == ".tar" for path in paths)
    if packed and not is_there:
        cure = f"Unpack them: cd {folder} && gunzip *.gz, or for instance zstd -d *.zst"
        raise errors.DataError(folder, f"its {len(packed)} tars are compressed, {packed[0]} for instance", cure)
    return is_there


def survey_tars(folder: Path) -> tuple[source_layout.Layout, image_survey.Survey]:
    """The tars' split and labels, and what their images are.

    Raises:
        DataError: there is one tar alone, a tar cannot be read, or labels are not where they are looked for.
    """
    tars = sorted(path for pattern in ("*.tar", "*/*.tar") for path in folder.glob(pattern) if path.is_file())
    train, val, reason = _split(folder, tars)
    samples = _Samples()
    for split, path in progress.bar(_looked_at(train, val), label="look", total=len(train) + len(val), unit="tar"):
        samples.read_tar(folder, path, split)
    settings = {
        "kind": source_layout.Setting("webdataset", "tars that are there, indexed where they lie"),
        "train": source_layout.Setting(_globs(folder, train, tars), f"to learn from: {reason}"),
        "val": source_layout.Setting(_globs(folder, val, tars), "to measure on"),
    }
    labels = _labels(folder, train[0], samples)
    survey = image_survey.survey_images(labels.names, samples.images, samples.kept)
    notes = (*labels.notes, *samples.extent_notes(train, val))
    return source_layout.Layout(folder, settings | labels.settings, labels.is_there, notes), survey


def _split(folder: Path, tars: Sequence[Path]) -> tuple[list[Path], list[Path], str]:
    """Tars to learn from and to measure on, and why these."""
    words_by_tar = {path: _words(path.relative_to(folder)) for path in tars}
    split_by_word = split_names.classify({word for words in words_by_tar.values() for word in words})
    by_split: dict[str, list[Path]] = {"train": [], "val": [], "": []}
    for path, words in words_by_tar.items():
        split = next((split_by_word[word] for word in words if word in split_by_word), "")
        by_split.setdefault(split, []).append(path)
    train = by_split["train"] or by_split[""]
    if train and by_split["val"]:
        return train, by_split["val"], "the names say so"
    train = train or list(tars)
    if len(train) < 2:
        raise errors.DataError(
            train[0],
            "is one tar alone: there is nothing to measure on",
            "Write two, named for instance train-0.tar and val-0.tar, or unpack it into a folder for each class",
        )
    held_out = max(1, round(len(train) * source_layout.VAL_FRACTION))
    return train[:-held_out], train[-held_out:], "no name tells a split, so that the last fifth is held out"


def _words(path: Path) -> list[str]:
    return [word.casefold() for part in reversed(path.with_suffix("").parts) for word in re.findall(r"[^\W\d_]+", part)]


def _globs(folder: Path, tars: Sequence[Path], others: Sequence[Path]) -> list[str]:
    """Globs that match these of the tars alone; where no numbers' globs do, their names."""
    names = [glob.escape(path.relative_to(folder).as_posix()) for path in tars]
    for pattern in (r"\d+(?=\D*$)", r"\d+(?=[^/]*$)"):
        globs = sorted({re.sub(pattern, "*", name) for name in names})
        matched = {path for each in globs for path in folder.glob(each)}
        if matched & set(others) == set(tars) and len(globs) < len(names):
            return globs
    return names


def _looked_at(train: Iterable[Path], val: Iterable[Path]) -> list[tuple[str, Path]]:
    """The tars that are read, with their splits: within the bytes of each split, and at least one."""
    chosen = []
    for split, paths in (("train", train), ("val", val)):
        bytes_read = 0
        for path in paths:
            if bytes_read <= _MOST_BYTES:
                chosen.append((split, path))
            bytes_read += path.stat().st_size
    return chosen


class _Samples:
    """The samples of the tars that were read."""

    def __init__(self) -> None:
        self.images: list[image_survey.LocatedImage] = []
        self.kept: list[image_survey.LocatedImage] = []
        self._tars = 0

    def read_tar(self, folder: Path, path: Path, split: str) -> None:
        """Take a tar's samples, with the bytes of the first ones."""
        self._tars += 1
        url = path.relative_to(folder).as_posix()

        def visit(sample: sample_reader.Sample) -> None:
            image = image_survey.LocatedImage(split, sample.label, f"{url}: {sample.key}", b"")
            self.images.append(image)
            if len(self.kept) < _MOST_KEPT:
                self.kept.append(image.with_bytes(sample.image))

        sample_reader.index_tar(path, url=url, split=split, visit=visit)

    def labels(self, split: str | None = None) -> Counter[int]:
        """Labels with their counts, of a split or of both."""
        return Counter(image.label for image in self.images if split in (None, image.split))

    def folders(self) -> list[str]:
        """First folders of the samples' names within their tars."""
        names = (image.name.partition(": ")[2] for image in self.images)
        return sorted({name.partition("/")[0] for name in names if "/" in name})

    def extent_notes(self, train: Sequence[Path], val: Sequence[Path]) -> list[str]:
        """That some tars were not read."""
        total = len(train) + len(val)
        return [f"{self._tars} of {total} tars were read; counts are of those"] if self._tars < total else []


@dataclass(frozen=True, slots=True)
class _Labels:
    """What the labels of tars mean."""

    names: Sequence[str]
    """Of the classes, in label order."""
    settings: dict[str, source_layout.Setting]
    """What a configuration says of it."""
    is_there: bool = True
    """Whether there are any."""
    notes: tuple[str, ...] = ()
    """What a person should know of it."""


def _labels(folder: Path, tar: Path, samples: _Samples) -> _Labels:
    counts = samples.labels()
    unlabelled = counts.pop(index.UNLABELLED, 0)
    if not counts:
        json_labels.refuse_alone(tar)
        return _unlabelled(samples.folders())
    count = max(counts) + 1
    classes = _classes(folder, tar, count)
    names = classes.value if isinstance(classes.value, list) else [str(label) for label in range(count)]
    settings = {"classes": classes}
    if unlabelled:
        if classes.value is None:
            settings["classes"] = source_layout.Setting(names, "the labels: nothing names them")
        settings["labels"] = source_layout.Setting("optional", f"{unlabelled} rows have no .cls")
    elif missing := count - len(samples.labels("train").keys() & set(range(count))):
        reason = f"{missing} of the classes have no training image among those that were read"
        settings["allow_empty_classes"] = source_layout.Setting(value=True, reason=reason)
    first = min(counts)
    note = f"labels begin at {first}, so that class {names[0]} has no image: is another counting meant?"
    return _Labels(names, settings, notes=(note,) if first else ())


def _unlabelled(folders: Sequence[str]) -> _Labels:
    reason = "the classes of the teacher, in its order: the rows have none"
    settings = {
        "classes": source_layout.Setting(dataset_config.IMAGENET_1K, reason),
        "labels": source_layout.Setting("optional", "no row has a label"),
        "allow_empty_classes": source_layout.Setting(value=True, reason="no row has a label"),
    }
    notes = [source_layout.UNLABELLED_NOTE]
    if len(folders) > 1:
        names = ", ".join(folders[:_MOST_NAMED])
        notes.insert(0, f"the tars hold folders ({names}) and no .cls: if those are classes, unpack them: tar xf TAR")
    return _Labels((), settings, is_there=False, notes=tuple(notes))


def _classes(folder: Path, tar: Path, count: int) -> source_layout.Setting:
    """Names of the classes: from a file beside the tars, or from the JSON in one of them; else none."""
    by_name = {path.name.lower(): path for path in folder.iterdir() if path.is_file()}
    for name in _CLASS_FILES:
        path = by_name.get(name)
        if path is not None and path.stat().st_size <= _MOST_CLASS_BYTES:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
            names = [line for line in lines if line]
            if len(names) >= count and len(set(names)) == len(names):
                return source_layout.Setting(names, f"the lines of {path.name}")
    json_names = json_labels.class_names(tar, count)
    if json_names:
        return source_layout.Setting(json_names, f"as the .json of {tar.name} call them")
    return source_layout.Setting(None, "nothing names the labels: they are called by their numbers")
