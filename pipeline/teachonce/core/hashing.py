"""Digests of data and files, and the permutations made of them.

Everything here is a pure function whose value is part of a stored format: never change one, add another.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def canonical_json(data: object) -> str:
    """JSON with sorted keys and no spaces; NaN and infinity are refused (ValueError)."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_digest(data: object) -> str:
    """BLAKE2b-128 of the canonical JSON of plain data, as 32 hex digits."""
    return hashlib.blake2b(canonical_json(data).encode(), digest_size=16).hexdigest()


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def keys_crc32(keys: Iterable[str]) -> int:
    """CRC-32 (zlib) of the keys, each followed by a newline: a fingerprint of a tar's row order."""
    # The newline keeps keys apart: without it, "a" and "bc" would have the sum of "ab" and "c".
    return zlib.crc32("".join(f"{key}\n" for key in keys).encode())


def seed64(*parts: object) -> int:
    """An unsigned 64-bit integer from a list of plain values, the same in every process."""
    # As a JSON list, which keeps the parts and their types apart: ("a", "bc") and ("ab", "c") differ, as do 1 and "1".
    text = canonical_json(list(parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def permutation(count: int, *parts: object) -> np.ndarray:
    """A permutation of range(count) that depends on `parts` alone: int64 (count,).

    Sorting raw Philox bits keeps it stable across NumPy releases, which `Generator.permutation` does not promise.
    """
    # Stable: equal words, however unlikely, must leave one order everywhere.
    bits = np.random.Philox(key=seed64(*parts)).random_raw(count)
    return np.argsort(bits, kind="stable")
