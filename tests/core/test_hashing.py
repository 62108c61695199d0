"""These values are part of stored formats: if one changes, old shards and caches are unusable."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from teachonce.core import hashing

ROOT = Path(__file__).parents[2]


def test_canonical_json():
    assert hashing.canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    with pytest.raises(ValueError, match="JSON"):
        hashing.canonical_json([float("inf")])


def test_golden_digest():
    assert hashing.json_digest({"b": 1, "a": [True, "ключ"]}) == "c2a64315c5af6dba10e8ef87aefd53e6"
    assert hashing.json_digest({"a": [True, "ключ"], "b": 1}) == hashing.json_digest({"b": 1, "a": [True, "ключ"]})


def test_golden_keys_crc32():
    assert hashing.keys_crc32([]) == 0
    assert hashing.keys_crc32(["digits/0001", "ключ"]) == 2_344_204_597
    assert hashing.keys_crc32(["ab", "c"]) != hashing.keys_crc32(["a", "bc"])
    assert hashing.keys_crc32(["a", "b"]) != hashing.keys_crc32(["b", "a"])


def test_golden_seed64():
    assert hashing.seed64() == 14_368_017_890_445_460_849
    assert hashing.seed64("canary", "ab", 3) == 1_894_720_044_635_912_039
    assert hashing.seed64("canary", "ab", "3") != hashing.seed64("canary", "ab", 3)


def test_golden_permutation():
    assert hashing.permutation(8, "teacher rows", 0, 1).tolist() == [6, 5, 2, 7, 1, 0, 4, 3]
    assert hashing.json_digest(hashing.permutation(1000, "x").tolist()) == "7e7d87d5660721bf218e420fbe4c8ca5"


@pytest.mark.parametrize("count", [0, 1, 2, 1001])
def test_permutation_holds_every_number(count):
    assert np.array_equal(np.sort(hashing.permutation(count, "x", count)), np.arange(count))


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert hashing.sha256_file(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert hashing.sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_another_process_agrees():
    code = "from teachonce.core import hashing; print(hashing.seed64('a', 1), hashing.permutation(5, 'p').tolist())"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == f"{hashing.seed64('a', 1)} {hashing.permutation(5, 'p').tolist()}\n"
