"""Where the samples of a tar lie, found by WebDataset's rule: neighbours with one name up to the first dot are one."""

import hashlib
import posixpath
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from teachonce.core import errors
from teachonce.shards import index, sample_keys, tar_reader

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_IMAGE_BYTES = 1 << 28
"""Most bytes of an encoded image."""
_LABEL = "cls"
_MAX_LABEL_BYTES = 32
_MAX_LABEL_DIGITS = 18
_NEIGHBOURS = "with the members of each sample one behind the other, an image among them: tar --sort=name"


@dataclass(slots=True)
class SampleTable:
    """Where each sample of a tar lies, what label it has and how its image is known again, by row."""

    keys: list[str] = field(default_factory=list)
    # Arrays of numbers, not objects: a tar may have a million rows, and a process remembers dozens of tars.
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    digests: bytearray = field(default_factory=bytearray)
    """SHA-256 of each image, one behind the other."""
    sha256: str = ""
    """SHA-256 of the whole tar, as 64 hex digits."""

    def digest(self, row: int) -> bytes:
        """SHA-256 of a row's image."""
        return bytes(self.digests[32 * row : 32 * row + 32])


def scan(stream: BinaryIO, path: Path, *, is_indexed: bool) -> tuple[SampleTable, int]:
    """A tar from end to end: what it holds, and the bytes of zeros that it ends with.

    Args:
        stream: the tar, at its beginning.
        path: names it in a refusal.
        is_indexed: whether an index vouches for it, so that it was sound once and can be restored.

    Raises:
        DataError: it is no whole tar, or its members are no samples.
    """
    reader = tar_reader.Reader(stream)
    samples = _Scan(path, is_indexed=is_indexed)
    try:
        for member in tar_reader.iter_members(reader):
            samples.add(member, reader)
        samples.end_sample()
    except tar_reader.CompressedError as error:
        cure = f"Unpack it: {error} -dc FILE > FILE.tar; and correct the globs"
        raise errors.DataError(path, f"is compressed with {error}", cure) from error
    except tar_reader.TarError as error:
        raise errors.DataError(path, f"is not a whole tar ({error})", index.RESTORE) from error
    samples.table.sha256 = reader.sha256()
    return samples.table, reader.end_mark


class _Scan:
    """Members into samples, by WebDataset's rule."""

    def __init__(self, path: Path, *, is_indexed: bool) -> None:
        """Begin a tar; arguments as those of `scan`."""
        self.table = SampleTable()
        self._path = path
        self._is_indexed = is_indexed
        self._key = ""
        self._images: dict[str, tuple[tar_reader.Member, bytes]] = {}
        self._label = index.UNLABELLED
        self._extensions: set[str] = set()

    def add(self, member: tar_reader.Member, reader: tar_reader.Reader) -> None:
        """Add a member to its sample, reading its data where they are an image or a label."""
        # WebDataset's rule: the key ends at the first dot of the file's name, and dots of folders do not count.
        folder, slash, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        kind = extension.rpartition(".")[2].lower()
        # By its last ending: `a.mask.png` belongs to sample `a` too, though it is not its image.
        if not (stem and dot and kind in (*IMAGE_EXTENSIONS, _LABEL) and (member.is_file or member.is_link)):
            return
        self._require_plain(member)
        self._begin(folder + slash + stem)
        self._take(member, extension.lower(), reader)

    def end_sample(self) -> None:
        """Add the sample whose members have all passed; nothing where there is none."""
        if not self._extensions:
            return
        if not self._images:
            self._refuse_without_image()
        if len(self._images) > 1:
            names = " and ".join(member.name for member, _ in self._images.values())
            self._refuse(f"sample {self._key!r} has {len(self._images)} images, {names}", "with one image a sample")
        ((member, digest),) = self._images.values()
        table = self.table
        table.keys.append(self._key)
        table.labels.append(self._label)
        table.offsets.append(member.offset)
        table.sizes.append(member.size)
        table.digests += digest

    def _begin(self, key: str) -> None:
        if self._extensions and key == self._key:
            return
        self.end_sample()
        if len(key.encode()) > index.MAX_KEY_BYTES:
            limit, row = f"at most {index.MAX_KEY_BYTES} bytes", len(self.table.keys)
            shown = f"{key[:40]}…"
            raise errors.DataError.for_value(self._path, f"key of row {row}", limit, shown, "Rename the sample")
        self._key, self._images, self._label, self._extensions = key, {}, index.UNLABELLED, set()

    def _take(self, member: tar_reader.Member, extension: str, reader: tar_reader.Reader) -> None:
        if extension in self._extensions:
            self._refuse(f"{member.name!r} is there twice", "without the second one")
        self._extensions.add(extension)
        if extension in IMAGE_EXTENSIONS:
            self._require_size(member, MAX_IMAGE_BYTES)
            # Hashed now, while the whole tar passes by: a sample read later is compared with what the tar's sha256
            # covered.
            self._images[extension] = member, hashlib.sha256(reader.read(member.size)).digest()
        elif extension == _LABEL:
            self._require_size(member, _MAX_LABEL_BYTES)
            self._label = self._number(reader.read(member.size).strip())

    def _refuse_without_image(self) -> None:
        """Say why the members that lie here are no sample."""
        endings = sorted(self._extensions)
        problem, cure = f"sample {self._key!r} has no image; it has {endings}", _NEIGHBOURS
        same_names = [key for key in self.table.keys if posixpath.normpath(key) == posixpath.normpath(self._key)]
        if self._key in same_names:
            problem = f"the members of sample {self._key!r} lie apart; {endings} come after other samples"
        elif same_names:
            problem, cure = (
                f"one sample has two names, {same_names[0]!r} and {self._key!r}; {problem}",
                "with names of one form",
            )
        elif any(ending.rpartition(".")[2] in IMAGE_EXTENSIONS for ending in endings):
            cure = "so that the name of each image has one dot: what follows the first one is its ending"
        self._refuse(problem, cure)

    def _refuse(self, problem: str, advice: str) -> NoReturn:
        cure = index.RESTORE if self._is_indexed else f"Write the tar again {advice}"
        raise errors.DataError(self._path, problem, cure)

    def _number(self, text: bytes) -> int:
        # A longer number than any label would be slow to read, or no int64.
        if not text.isdigit() or len(text) > _MAX_LABEL_DIGITS:
            problem = f"label of sample {self._key!r} must be an ASCII integer"
            raise errors.DataError(self._path, f"{problem}. Got {text!r}", "Correct the tar")
        return int(text)

    def _require_plain(self, member: tar_reader.Member) -> None:
        """Refuse a member that belongs to a sample but has no data, or no name, of its own."""
        if member.is_link:
            cure = "Write the tar again with tar --hard-dereference --dereference"
            raise errors.DataError(self._path, f"{member.name!r} must be a file. Got a link to one", cure)
        if member.is_sparse:
            raise tar_reader.TarError(f"{member.name!r} is a sparse file")
        if fault := sample_keys.name_fault(member.name):
            name = sample_keys.printable_name(member.name)
            raise errors.DataError(self._path, f"the name {name!r} {fault}", "Rename it, and write the tar again")

    def _require_size(self, member: tar_reader.Member, limit: int) -> None:
        if member.size > limit:
            condition, cure = f"at most {limit:,} bytes", "Correct the tar"
            raise errors.DataError.for_value(self._path, repr(member.name), condition, f"{member.size:,}", cure)
