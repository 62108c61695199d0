"""Members of an uncompressed tar, read forwards, from bytes that nobody vouches for.

The three dialects that writers use: POSIX's ustar, GNU's long names and large numbers, pax headers. No size in a
header is believed beyond the end of the file, no chain of headers is followed by recursion, and a header that is
damaged is an error, never the end.

Source: POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Header Block"; GNU tar's manual, "Basic Tar Format".
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

BLOCK = 512
END_BYTES = 2 * BLOCK
"""Fewest zeros that end a tar."""
MAX_EXTENSION_BYTES = 1 << 20
"""Most bytes of a header that extends the next one: long names, a file's attributes."""
_READ_BYTES = 1 << 20

_REGULAR, _LINKS, _NO_DATA = b"\0" + b"07", b"12", b"123456"
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"
_PAX, _PAX_GLOBAL = b"xX", b"g"
_NUMBERS = (slice(100, 108), slice(108, 116), slice(116, 124), slice(136, 148), slice(329, 337), slice(337, 345))
"""Mode, owner, group, time, device: of no use here, but in a sound header they are numbers."""
_MAX_DIGITS = 20  # of a decimal number in a pax header
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
}
"""First bytes of a file, and the program that makes it of a tar."""


class TarError(ValueError):
    """It is no tar, or a damaged one."""


class CompressedError(TarError):
    """It is no tar, but what one of the usual programs makes of it; its text is that program's name."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member; a name that is no UTF-8 holds surrogate escapes."""

    name: str
    """Path, as it was archived."""
    offset: int
    """Where its data begin, in bytes."""
    size: int
    """Count of bytes of its data."""
    is_file: bool
    """Whether it is a regular file with its data behind the header."""
    is_link: bool
    """Whether it stands for another member or file."""
    is_sparse: bool
    """Whether its data leave out holes."""


class Reader:
    """A file, read forwards once, that digests what passes."""

    def __init__(self, stream: BinaryIO) -> None:
        self.size = stream.seek(0, 2)
        self.at = stream.seek(0)
        self.end_mark = 0
        """Bytes of the zeros that end the tar, once `iter_members` has come to them."""
        self._stream = stream
        self._hasher = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Read and digest the next bytes.

        Raises:
            TarError: there are not so many.
        """
        # Compared first: reading allocates what it is asked for.
        data = self._stream.read(size) if 0 <= size <= self.size - self.at else b""
        if len(data) != size:
            raise TarError(f"unexpected end of data at byte {self.at:,}")
        self._hasher.update(data)
        self.at += size
        return data

    def peek(self, size: int) -> bytes:
        """The first bytes of the file; before anything is read."""
        data = self._stream.read(size)
        self._stream.seek(0)
        return data

    def skip(self, offset: int) -> None:
        """Read on to a place; TarError where it lies behind the end."""
        while self.at < offset:
            self.read(min(_READ_BYTES, offset - self.at))

    def end(self, mark: int) -> None:
        """Read to the end of the file.

        Args:
            mark: bytes of zeros that were read.

        Raises:
            TarError: there is more behind them.
        """
        mark_start = self.at - mark
        while self.at < self.size:
            # Members behind the mark are there for some tools and not for others; and the sha256 is of every byte.
            if self.read(min(_READ_BYTES, self.size - self.at)).strip(b"\0"):
                raise TarError(f"data behind its end mark at byte {mark_start:,}")
        self.end_mark = self.size - mark_start

    def sha256(self) -> str:
        """SHA-256 of the whole file, once all of it was read: 64 hex digits."""
        return self._hasher.hexdigest()


@dataclass(slots=True)
class _Extension:
    """What headers say of the member that follows them."""

    name: bytes | None = None
    size: int | None = None
    is_sparse: bool = False
    kinds: set[bytes] = field(default_factory=set)

    def add(self, kind: bytes, data: bytes) -> None:
        # Readers differ in which of two they take: one tar would then hold other samples for another tool.
        if kind in self.kinds:
            raise TarError("two headers of one kind for a member")
        if kind != _PAX_GLOBAL:
            self.kinds.add(kind)
        if kind == _LONG_NAME:
            self.name = data.partition(b"\0")[0]
        elif kind in _PAX:
            records = dict(_records(data))
            self.name = records.get(b"path", self.name)
            self.size = _decimal(records[b"size"]) if b"size" in records else self.size
            self.is_sparse |= any(name.startswith(b"GNU.sparse.") for name in records)
        elif kind == _PAX_GLOBAL and {b"path", b"size"} & dict(_records(data)).keys():
            raise TarError("a global header names a path or a size for every member")


def iter_members(reader: Reader) -> Iterator[Member]:
    """All members in their order; their data may be read before the next one is asked for. At the end, all was read.

    Raises:
        TarError: a header is damaged, the file ends within a member, or there is something behind the end mark.
    """
    extension = _Extension()
    while reader.at < reader.size:
        block = _header(reader)
        if block is None:
            reader.end(BLOCK)
            return
        kind = block[156:157]
        size = _number(block[124:136])
        if kind in _PAX + _PAX_GLOBAL + _LONG_NAME + _LONG_LINK:
            # Held in memory as a whole, unlike the data of a member.
            if size > MAX_EXTENSION_BYTES:
                raise TarError(f"a header of {size:,} bytes, may have {MAX_EXTENSION_BYTES:,}")
            end = _padded(reader.at + size)
            extension.add(kind, reader.read(size))
        else:
            member = _member(block, reader.at, extension)
            yield member
            end = _padded(member.offset + member.size)
            extension = _Extension()
        reader.skip(end)


def _member(block: bytes, offset: int, extension: _Extension) -> Member:
    kind = block[156:157]
    if kind == _SPARSE:
        raise TarError(f"{_text(_name(block))!r} is a sparse file")
    size = _number(block[124:136]) if extension.size is None else extension.size
    name = _text(_name(block) if extension.name is None else extension.name)
    return Member(
        name=name,
        offset=offset,
        size=0 if kind in _NO_DATA else size,
        # Before POSIX, a folder was a file whose name ends with a slash.
        is_file=kind in _REGULAR and not name.endswith("/"),
        is_link=kind in _LINKS,
        is_sparse=extension.is_sparse,
    )


def _header(reader: Reader) -> bytes | None:
    """The next block; None where it is the first of the end mark.

    Raises:
        CompressedError: the first one is none, and begins as a compressed file does: the name of a member may, too.
    """
    start = reader.peek(max(map(len, _COMPRESSED))) if not reader.at else b""
    try:
        return _block(reader)
    except TarError:
        program = next((name for mark, name in _COMPRESSED.items() if start.startswith(mark)), None)
        if program is None:
            raise
        raise CompressedError(program) from None


def _block(reader: Reader) -> bytes | None:
    start = reader.at
    block = reader.read(BLOCK)
    if not any(block):
        return None
    # The field of the sum itself counts as spaces.
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != _number(block[148:156]):
        raise TarError(f"a damaged header at byte {start:,}" if start else "it does not begin as one")
    # A sum of bytes misses two errors that cancel out: fields that must be numbers find more of them.
    for place in _NUMBERS:
        _number(block[place])
    return block


def _name(block: bytes) -> bytes:
    name, prefix = block[:100].partition(b"\0")[0], block[345:500].partition(b"\0")[0]
    # GNU keeps other things where POSIX has the first part of a long name.
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _number(text: bytes) -> int:
    """Octal digits, or GNU's number to the base of 256."""
    if text[0] == 0xFF:
        raise TarError("a member of negative size")
    if text[0] == 0x80:
        return int.from_bytes(text[1:])
    digits = text.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise TarError("a damaged header")
    return int(digits or b"0", 8)


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise TarError("a damaged pax header")
    return int(digits)


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`LENGTH NAME=VALUE` and a newline each, LENGTH counting all of it."""
    start = 0
    while start < len(data):
        digits, _, _ = data[start : start + _MAX_DIGITS].partition(b" ")
        # Not beyond the data: a length that claims more fails at the newline below.
        end = start + _decimal(digits)
        name, equals, value = data[start + len(digits) + 1 : end - 1].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n":
            raise TarError("a damaged pax header")
        yield name, value
        start = end


def _padded(offset: int) -> int:
    return -(-offset // BLOCK) * BLOCK
