"""A store's objects into arrays, from bytes that nobody vouches for.

FORMAT.md's chain of codecs backwards, with the libraries that Zarr uses. Zarr's own reader allocates whatever a chunk
claims to hold and believes how long it says it is; here each claim is compared with the array's form first. It is three
times as quick, too: most of Zarr's time goes into its event loop.

Shapes: S aug seeds of a unit.
"""

import struct
from collections.abc import Sequence
from typing import BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc, vlen

from teachonce.format import layout

Array = npt.NDArray[np.generic]

# Its own threads do not survive a fork, and its environment variables would rule them; as Zarr has it, too.
blosc.use_threads = False

_BLOSC = struct.Struct("<4x3I")  # bytes that it unpacks to, block size, its own bytes
_CRC_BYTES = 4  # bytes of a crc32c
_ENTRY_BYTES = 16  # bytes of an index entry: offset, length
_ABSENT = 2**64 - 1


def read(stream: BinaryIO, spec: layout.ArraySpec, seeds_per_unit: int, seeds: Sequence[int]) -> Array:
    """Blocks of an object: (len(seeds), …) for the array of a unit; any other object is its one block.

    Args:
        stream: the object, its length within the format's limits.
        spec: of its array.
        seeds_per_unit: S.
        seeds: whose blocks, counted within the unit; unused where the object is not of a unit.

    Raises:
        ValueError: it is not what the spec says.
        RuntimeError: Blosc cannot unpack it.
    """
    end = stream.seek(0, 2)
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    if spec.per != "unit":
        stream.seek(0)
        # No more than the store's limits: whoever opened the object has compared its length.
        data = stream.read(end)
        return _strings(data, spec) if spec.dtype == "str" else _numbers(data, np.empty(spec.inner, dtype))
    index_start = stream.seek(max(0, end - seeds_per_unit * _ENTRY_BYTES - _CRC_BYTES))
    index = np.frombuffer(_without_crc32c(stream.read(end - index_start)), "<u8")
    blocks = np.empty((len(seeds), *spec.inner), dtype)
    for seed, block in zip(seeds, blocks, strict=True):
        # As Python's integers: in uint64, two claims could add up to a small number.
        offset, length = (int(number) for number in index[2 * seed : 2 * seed + 2])
        if offset + length > index_start:
            absent = offset == length == _ABSENT
            raise ValueError(f"seed {seed} of its unit was never written" if absent else "a place lies outside")
        stream.seek(offset)
        _numbers(stream.read(length), block)
    return blocks


def _numbers(data: bytes, target: Array) -> Array:
    packed = _checked_chunk(data, target.nbytes, target.nbytes)
    blosc.decompress(packed, target)
    return target


def _strings(data: bytes, spec: layout.ArraySpec) -> Array:
    (rows,) = spec.inner
    plain = blosc.decompress(_checked_chunk(data, 4 + rows * 4, layout.max_unpacked_bytes(spec)))
    # The decoder makes as many strings as are claimed here, before it looks at any.
    if int.from_bytes(plain[:4], "little") != rows:
        raise ValueError(f"must hold {rows} strings")
    strings: Array = vlen.VLenUTF8().decode(plain)
    return strings


def _checked_chunk(data: bytes, least: int, most: int) -> npt.NDArray[np.uint8]:
    """A chunk, once its header claims neither more than there may be nor more than there is: Blosc believes it."""
    packed = _without_crc32c(data)
    if len(packed) < _BLOSC.size:
        raise ValueError("is too short")
    plain, _, length = _BLOSC.unpack(packed[: _BLOSC.size].tobytes())
    if not least <= plain <= most or length != len(packed):
        raise ValueError(f"a chunk of {len(packed)} bytes claims {length}, and to unpack to {plain} of at most {most}")
    return packed


def _without_crc32c(data: bytes) -> npt.NDArray[np.uint8]:
    """Data without its crc32c behind it."""
    content = np.frombuffer(data, np.uint8)[:-_CRC_BYTES]
    if len(data) < _CRC_BYTES or google_crc32c.value(content) != int.from_bytes(data[-_CRC_BYTES:], "little"):
        raise ValueError("crc32c differs")
    return content
