"""`index.json`: what a folder of WebDataset tars holds, so that a missing, cut or swapped tar is an error.

A superset of the WebDataset index form (`shardlist` of `url` and `nsamples`).
Sample identity = (shard, row in shard, key).
"""

import copy
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import pydantic

from teachonce.core import config, errors, files, storage
from teachonce.shards import sample_keys

NAME = "index.json"
FORMAT = 1
SPLITS = ("train", "val")
MAX_BYTES = 1 << 28
"""Most bytes of the file, which nobody vouches for: those of a million tars."""
RESTORE = "Restore it: dvc checkout, or dvc pull; where DVC does not hold it, from where it came"
"""What helps a damaged or missing tar: one that was adopted is nobody's output."""
MAX_KEY_BYTES = 4096
"""Most bytes of a sample's key in UTF-8."""
UNLABELLED = -1
"""The label of a sample that has none."""
BASE = "TEACHONCE_SHARDS_BASE"
"""Environment variable: path or URL of the folder where the tars of an index lie now, whatever its base says."""


def _require_clean(name: str) -> str:
    if fault := sample_keys.name_fault(name):
        raise ValueError(f"a name that {fault}")
    return name


Name = Annotated[str, pydantic.AfterValidator(_require_clean)]


def _refuse_any(_: object) -> None:
    raise ValueError("is no key of a tar: it follows from the list of classes")


FromIndex = Annotated[int | None, pydantic.BeforeValidator(_refuse_any)]
"""What a tar takes from the index that lists it; no file may say it of a tar."""


class Shard(config.Model):
    """What an index says of one tar, enough to tell it from any other."""

    url: Name
    """File name, relative to the index's base."""
    nsamples: int = pydantic.Field(ge=1)
    """Count of rows of the tar."""
    split: str = pydantic.Field(pattern="^(train|val)$")
    """Which part of the data the tar belongs to."""
    bytes: int = pydantic.Field(ge=1)
    """Size of the tar in bytes."""
    sha256: config.Sha256
    """SHA-256 of the whole tar: its identity, wherever it lies."""
    keys_crc32: int = pydantic.Field(ge=0, lt=1 << 32)
    """CRC-32 of the keys in row order (`hashing.keys_crc32`)."""
    unlabelled: int = pydantic.Field(default=0, ge=0)
    """Rows without a label; left out of the file where it is 0."""
    classes: FromIndex = pydantic.Field(default=None, exclude=True)
    """Count of the index's classes, which each label is below; None of a tar that no index lists yet."""

    @pydantic.model_validator(mode="after")
    def _counts(self) -> "Shard":
        if self.unlabelled > self.nsamples:
            raise ValueError(f"unlabelled must be at most nsamples, {self.nsamples}")
        return self


class SkippedFile(config.Model):
    """A file that prepare left out because the configuration asked it to."""

    file: str
    """Path within the source."""
    reason: str
    """Why it could not be used."""


class Index(config.Model):
    """All tars of a data set, in order, with the names of its classes.

    Its lists, which may be of a million entries, are judged up to the first bad one.
    """

    format: int
    """Version of this file's form."""
    base: str
    """Folder of the tars; relative to the index file unless absolute."""
    classes: Annotated[tuple[Name, ...], pydantic.FailFast()]
    """Class names; the label of a sample is a position in this list."""
    rows_per_tar: int = pydantic.Field(ge=1)
    """The most rows a tar of this data set may have."""
    shardlist: Annotated[tuple[Shard, ...], pydantic.FailFast()]
    """The tars of all splits."""
    skipped: Annotated[tuple[SkippedFile, ...], pydantic.FailFast()] = ()
    """Files left out by `on_bad_image: skip`."""

    @pydantic.field_validator("shardlist")
    @classmethod
    def _each_tar_once(cls, shardlist: tuple[Shard, ...]) -> tuple[Shard, ...]:
        # Twice in one split, its images would count twice; in both, students would be measured on what they learnt.
        for names in ([shard.url for shard in shardlist], [shard.sha256 for shard in shardlist]):
            if len(set(names)) < len(names):
                repeated = next(name for name, count in Counter(names).items() if count > 1)
                raise ValueError(f"a tar is listed twice, {repeated}")
        return shardlist

    @pydantic.field_validator("shardlist")
    @classmethod
    def _with_classes(cls, shardlist: tuple[Shard, ...], info: pydantic.ValidationInfo) -> tuple[Shard, ...]:
        # So that whoever opens a tar compares its labels, without being handed the list.
        classes = {"classes": len(info.data.get("classes", ()))}
        return tuple(shard.model_copy(update=classes) for shard in shardlist)

    def of_split(self, split: str) -> tuple[Shard, ...]:
        """The tars of one split, in order."""
        return tuple(shard for shard in self.shardlist if shard.split == split)

    def nsamples(self, split: str) -> int:
        """Number of samples of one split."""
        return sum(shard.nsamples for shard in self.of_split(split))

    def labelled(self, split: str) -> int:
        """Number of samples of one split that have a label."""
        return sum(shard.nsamples - shard.unlabelled for shard in self.of_split(split))


class Shards:
    """An index with the place it was read from: what turns a shard into a path."""

    def __init__(self, index: Index, tars: storage.Folder) -> None:
        self.index = index
        self._tars = tars

    @property
    def base(self) -> Path:
        """Folder of the tars, or of their copies."""
        return self._tars.path

    def path(self, shard: Shard) -> Path:
        """Where the tar of a shard lies; behind a URL, it is fetched."""
        return self._tars.file(shard.url, shard.sha256, shard.bytes)

    def ahead(self, shard: Shard) -> None:
        """Begin to fetch a tar that is read next."""
        self._tars.ahead(shard.url, shard.sha256, shard.bytes)

    def only(self, shardlist: Iterable[Shard]) -> "Shards":
        """Some of the tars, at the same place."""
        twin = copy.copy(self)
        twin.index = self.index.model_copy(update={"shardlist": tuple(shardlist)})
        return twin

    def resolved(self) -> "Shards":
        """The same tars by their absolute paths, for a process that works in another folder."""
        return Shards(self.index, self._tars.resolved())


def _tars_location(folder: str | Path, index: Index) -> str | Path:
    # An index is untrusted: of itself it must not send a reader to another host. Whoever runs the command may, by
    # variable.
    if "://" in index.base:
        cure = f"Set {BASE} to the folder or URL of the tars"
        raise errors.DataError.for_value(f"{folder}/{NAME}", "base", "a path, not a URL", index.base, cure)
    if isinstance(folder, Path) or Path(index.base).is_absolute():
        return Path(folder, index.base)
    if ".." in Path(index.base).parts:
        cure = f"Set {BASE} to the folder or URL of the tars"
        raise errors.DataError.for_value(f"{folder}/{NAME}", "base", "a path below it", index.base, cure)
    return f"{folder}/{index.base}".removesuffix("/.")


def read(folder: str | Path) -> Shards:
    """Read the index of a folder of shards, given by its path or URL.

    Raises:
        DataError: there is no index, it is damaged, or its format is newer than this release.
    """
    folder = storage.parse_location(folder) if isinstance(folder, str) else folder
    path = storage.open_folder(folder, errors.DataError).file(NAME, most_bytes=MAX_BYTES)
    try:
        data = files.read_json(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise errors.DataError(
            path, f"cannot be read ({error})", "Make or fetch the shards: dvc repro prepare, or dvc pull"
        ) from error
    if isinstance(data, dict) and data.get("format") != FORMAT:
        raise errors.DataError.for_value(
            path, "format", f"{FORMAT}", data.get("format"), "Make it again: dvc repro -f prepare"
        )
    try:
        index = config.parse(data, Index, str(path))
    except errors.ConfigError as error:
        raise errors.DataError.from_error(error, "Make it again: dvc repro -f prepare") from error
    for shard in index.shardlist:
        # Where the tars are remote, this is also the name of a copy on this machine, which must not leave the copies'
        # folder.
        if Path(shard.url).is_absolute() or ".." in Path(shard.url).parts:
            raise errors.DataError.for_value(path, "shardlist.url", "a path below base", shard.url, "Correct the index")
    return Shards(index, storage.open_folder(os.environ.get(BASE) or _tars_location(folder, index), errors.DataError))


def write(
    folder: Path,
    *,
    base: Path,
    classes: Sequence[str],
    rows_per_tar: int,
    shardlist: Sequence[Shard],
    skipped: Sequence[SkippedFile] = (),
) -> Index:
    """Write `folder/index.json`.

    Args:
        folder: where the index goes.
        base: folder of the tars. Inside `folder`, or given relative to the working directory, it is stored relative,
            so that both can be moved together; any other stays absolute.
        classes: class names in label order.
        rows_per_tar: the most rows a tar of this data set may have.
        shardlist: the tars, in order.
        skipped: files that were left out.
    """
    inside = base.absolute().is_relative_to(folder.absolute())
    stored_base = Path(os.path.relpath(base, folder)) if inside or not base.is_absolute() else base
    index = Index(
        format=FORMAT,
        base=stored_base.as_posix(),
        classes=tuple(classes),
        rows_per_tar=rows_per_tar,
        shardlist=tuple(shardlist),
        skipped=tuple(skipped),
    )
    # Without defaults, so that a data set whose samples all have labels keeps the index it always had, byte for byte.
    shards = [shard.model_dump(mode="json", exclude_defaults=True) for shard in shardlist]
    files.write_json(folder / NAME, {**index.model_dump(mode="json"), "shardlist": shards})
    return index
