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
_SUM = 4  # bytes of a crc32c
_PLACE = 16  # bytes of an index entry: offset, length
_ABSENT = 2**64 - 1


def read(stream: BinaryIO, spec: layout.ArraySpec, seeds_per_unit: int, seeds: Sequence[int]) -> Array:
    """Blocks of an object: (len(seeds), …) for the array of a unit; any other object is its one block.

    Args:
        stream: the object.
        spec: of its array.
        seeds_per_unit: S.
        seeds: which ones, counted within the unit; unused where the object is not of a unit.

    Raises:
        ValueError: it is not what the spec says.
        RuntimeError: Blosc cannot unpack it.
    """
    end = stream.seek(0, 2)
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    if spec.per != "unit":
        stream.seek(0)
        data = stream.read(end)
        return _strings(data, spec) if spec.dtype == "str" else _numbers(data, np.empty(spec.inner, dtype))
    first = stream.seek(max(0, end - seeds_per_unit * _PLACE - _SUM))
    places = np.frombuffer(_checked(stream.read(end - first)), "<u8")
    found = np.empty((len(seeds), *spec.inner), dtype)
    for seed, into in zip(seeds, found, strict=True):
        offset, length = (int(number) for number in places[2 * seed : 2 * seed + 2])
        if offset + length > first:
            absent = offset == length == _ABSENT
            raise ValueError(f"seed {seed} of its unit was never written" if absent else "a place lies outside")
        stream.seek(offset)
        _numbers(stream.read(length), into)
    return found


def _numbers(data: bytes, into: Array) -> Array:
    packed = _packed(data, into.nbytes, into.nbytes)
    blosc.decompress(packed, into)
    return into


def _strings(data: bytes, spec: layout.ArraySpec) -> Array:
    (rows,) = spec.inner
    plain = blosc.decompress(_packed(data, 4 + rows * 4, layout.max_unpacked_bytes(spec)))
    if int.from_bytes(plain[:4], "little") != rows:
        raise ValueError(f"must hold {rows} strings")
    found: Array = vlen.VLenUTF8().decode(plain)
    return found


def _packed(data: bytes, least: int, most: int) -> npt.NDArray[np.uint8]:
    """What Blosc is given, once its header claims neither more than there may be nor more than there is."""
    packed = _checked(data)
    if len(packed) < _BLOSC.size:
        raise ValueError("is too short")
    plain, _, length = _BLOSC.unpack(packed[: _BLOSC.size].tobytes())
    if not least <= plain <= most or length != len(packed):
        raise ValueError(f"a chunk of {len(packed)} bytes claims {length}, and to unpack to {plain} of at most {most}")
    return packed


def _checked(data: bytes) -> npt.NDArray[np.uint8]:
    """Data without its crc32c behind it."""
    found = np.frombuffer(data, np.uint8)
    if len(found) < _SUM or google_crc32c.value(found[:-_SUM]) != int.from_bytes(data[-_SUM:], "little"):
        raise ValueError("crc32c differs")
    return found[:-_SUM]
