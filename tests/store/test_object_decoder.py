"""Objects made to harm: every digest fits, and what they claim does not."""

import contextlib
import struct
import tracemalloc
from collections.abc import Callable

import google_crc32c
import numpy as np
import pytest
from numcodecs import blosc

from teachonce.core import errors, hashing
from teachonce.format import layout, schema

HUGE = 2**31 - 1


def summed(data: bytes) -> bytes:
    return data + struct.pack("<I", google_crc32c.value(data))


def patched(data: bytes, at: int, value: int, form: str = "<I") -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


def packed(plain: bytes) -> bytes:
    return blosc.compress(plain, b"zstd", 5, blosc.BITSHUFFLE)


def put(store, name: str, data: bytes, tar: int = 0) -> None:
    """Replace an object, and its sha256 in the record."""
    path = store.object(name, tar)
    before = hashing.sha256_file(path)
    path.write_bytes(data)
    records = store.path / schema.UNITS
    records.write_bytes(records.read_bytes().replace(before.encode(), hashing.sha256(data).encode()))


def chunks(data: bytes, seeds: int = 2) -> list[bytes]:
    """Blosc's part of each chunk of a unit's object."""
    places = struct.unpack(f"<{2 * seeds}Q", data[-4 - 16 * seeds : -4])
    return [data[offset : offset + length - 4] for offset, length in zip(places[::2], places[1::2], strict=True)]


def unit(parts: list[bytes], place: Callable[[int, int], tuple[int, int]] = lambda offset, length: (offset, length)):
    """An object of these parts; `place` changes what its index says of each."""
    body, index = b"", b""
    for part in parts:
        data = summed(part)
        index += struct.pack("<2Q", *place(len(body), len(data)))
        body += data
    return body + summed(index)


def refusal(act) -> str:
    """The one line; refused without an allocation worth speaking of."""
    tracemalloc.start()
    try:
        with pytest.raises(errors.CacheError) as caught:
            act()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_tools_above_make_a_good_object(damaged):
    before = damaged.open().block(0, 1).logp_BK
    data = damaged.object("logp", 0).read_bytes()
    assert unit(chunks(data)) == data
    put(damaged, "logp", unit([packed(blosc.decompress(part)) for part in chunks(data)]))
    assert np.array_equal(damaged.open().block(0, 1).logp_BK, before)


@pytest.mark.parametrize("at", [4, 12], ids=["unpacked", "packed"])
@pytest.mark.parametrize("value", [0, 35, 37, 2**20, HUGE, 2**32 - 1])
def test_sizes_in_a_header_of_blosc_are_not_believed(damaged, at, value):
    for name, use in (
        ("logp", lambda: damaged.open().block(0, 0)),
        ("key", lambda: damaged.open().keys(0)),
        ("canary", lambda: damaged.open().canary(0)),
    ):
        data = damaged.object(name, 0).read_bytes()
        if name == "logp":
            forged = unit([patched(part, at, value) for part in chunks(data)])
        else:
            forged = summed(patched(data[:-4], at, value))
        put(damaged, name, forged)
        assert f"{damaged.object(name, 0)}: cannot be decoded (" in refusal(use)


def test_a_bomb_is_refused_by_its_size(damaged):
    bomb = packed(bytes(1 << 28))
    assert len(bomb) < 3e6
    put(damaged, "logp", unit([packed(bytes(1 << 16))] * 2))
    text = refusal(lambda: damaged.open().block(0, 0))
    assert "claims" in text
    assert "to unpack to 65536 of at most 36" in text
    # As an object it is larger than incompressible rows would be.
    put(damaged, "logp", unit([bomb, bomb]))
    assert "has " in (text := refusal(lambda: damaged.open().block(0, 0)))
    assert "bytes, may have 148" in text
    put(damaged, "key", summed(bomb))
    assert "bytes, may have" in refusal(lambda: damaged.open().keys(0))


@pytest.mark.parametrize("block_size", [0, 1, HUGE, 2**32 - 1])
def test_a_block_size_of_blosc_is_not_believed(damaged, block_size):
    before = damaged.open().block(0, 0).logp_BK
    parts = chunks(damaged.object("logp", 0).read_bytes())
    put(damaged, "logp", unit([patched(part, 8, block_size) for part in parts]))
    # Rows as short as these lie in one piece, whose block size may be anything.
    with contextlib.suppress(errors.CacheError):
        assert np.array_equal(damaged.open().block(0, 0).logp_BK, before)


@pytest.mark.parametrize(
    ("shift", "size", "pattern"),
    [
        (10**6, None, "a place lies outside"),
        (0, 2**63, "a place lies outside"),
        (2**63, None, "a place lies outside"),
        (2**64 - 1, 2**64 - 1, "seed 0 of its unit was never written"),
        (0, 0, "crc32c differs"),
        (0, 3, "crc32c differs"),
        (1, None, "crc32c differs"),
    ],
)
def test_places_in_an_index_are_not_believed(damaged, shift, size, pattern):
    def place(offset: int, length: int) -> tuple[int, int]:
        return min(offset + shift, 2**64 - 1), length if size is None else size

    put(damaged, "lse", unit(chunks(damaged.object("lse", 0).read_bytes()), place))
    assert f"cannot be decoded ({pattern}" in refusal(lambda: damaged.open().block(0, 0))


@pytest.mark.parametrize("data", [b"", b"x", summed(b""), summed(b"x" * 8), summed(struct.pack("<2Q", 0, 0))])
def test_an_object_without_room_for_its_index(damaged, data):
    put(damaged, "lse", data)
    assert "cannot be decoded (" in refusal(lambda: damaged.open().block(0, 1))


def strings(count: int, *sizes: int) -> bytes:
    return struct.pack("<I", count) + b"".join(struct.pack("<I", size) + b"pic-0000" for size in sizes)


@pytest.mark.parametrize(
    ("plain", "pattern"),
    [
        (strings(7, *[8] * 7), "must hold 6 strings"),
        (strings(2**32 - 1, *[8] * 6), "must hold 6 strings"),
        (strings(6, *[8] * 5), "corrupt buffer"),
        (strings(6, *[8] * 5, 9), "corrupt buffer"),
        (strings(6, *[8] * 5, 2**32 - 1), "corrupt buffer"),
        (strings(6, HUGE, *[8] * 5), "corrupt buffer"),
        (strings(6, *[8] * 6).replace(b"pic", b"\xff\xfe\xfd"), "codec can't decode"),
        (strings(6, *[8] * 6) + bytes(25_000), "to unpack to 25076 of at most 24604"),
    ],
)
def test_lengths_of_keys_are_not_believed(damaged, plain, pattern):
    put(damaged, "key", summed(packed(plain)))
    text = refusal(lambda: damaged.open().keys(0))
    assert f"{damaged.object('key', 0)}: cannot be decoded (" in text
    assert pattern in text


def test_no_number_of_a_row_is_believed_to_be_finite(damaged):
    for number in (np.nan, np.inf, -np.inf):
        plain = np.full((6, 3), number, np.float16).tobytes()
        put(damaged, "logp", unit([packed(plain)] * 2))
        assert "holds rows that were never written, or not finite" in refusal(lambda: damaged.open().block(0, 0))


@pytest.mark.parametrize(
    ("shape", "what", "got"),
    [
        ((1, 2**20, 600), "a block of class_id must be at most 1,073,741,824", "1,258,291,200: 1 × 1048576 × 600"),
        ((1, 2**18, "all"), "a block of logits must be at most 1,073,741,824", "2,097,152,000: 1 × 262144 × 2000"),
        ((80, 2**15, 900), "an object of class_id must be at most 4,294,967,296", "4,718,592,000: 80 × 32768 × 900"),
    ],
)
def test_blocks_and_objects_have_a_largest_size(recipe, shape, what, got):
    seeds, rows, k = shape
    classes = tuple(str(number) for number in range(2000))
    with pytest.raises(errors.ConfigError) as caught:
        layout.require_bounded(layout.array_specs(recipe(k, classes), rows), seeds, "here")
    assert str(caught.value).startswith(f"here: bytes of {what}. Got {got} of ")
    assert str(caught.value).endswith(". Use fewer rows_per_tar, seeds_per_unit or k")
    layout.require_bounded(layout.array_specs(recipe(100, classes), 2**20), 16, "here")


def test_a_store_that_claims_larger_blocks_is_refused_before_its_arrays_are_compared(damaged):
    def change(data):
        data["attributes"]["teachonce"]["extent"] |= {"aug_seeds": 2**20, "seeds_per_unit": 2**20}
        data["attributes"]["teachonce"]["extent"]["rows_per_tar"] = 1000
        return data

    damaged.edit("zarr.json", change)
    assert "bytes of an object of class_id must be at most" in refusal(damaged.open)


@pytest.mark.parametrize(
    ("name", "most"), [("zarr.json", 1 << 26), ("logp/zarr.json", 1 << 16), ("units.json", 6 << 17)]
)
def test_files_of_json_have_a_largest_size(damaged, name, most):
    path = damaged.path / name
    data = path.read_bytes()
    path.write_bytes(data + b" " * (most - len(data)))
    damaged.open()
    path.write_bytes(data + b" " * (most - len(data) + 1))
    assert f"{name}: cannot be read (has {most + 1:,} bytes, may have {most:,})" in refusal(damaged.open)


@pytest.mark.parametrize("k", [3, "all"])
def test_all_seeds_of_a_unit_are_its_blocks(store_of, k):
    cache = store_of(k).open()
    for group in (0, 1):
        for seed, rows in enumerate(cache.blocks(2, group)):
            expected = cache.block(2, 2 * group + seed).arrays()
            assert rows.arrays().keys() == expected.keys()
            assert all(np.array_equal(array, expected[name]) for name, array in rows.arrays().items())
    assert all(rows.lse_B is None for rows in cache.blocks(0, 0, lse=False))
    with pytest.raises(errors.IdentityError, match=r"group must be in 0…1\. Got 2\. Grow it"):
        cache.blocks(0, 2)
