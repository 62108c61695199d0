"""The only source of chance in a view: uniforms hashed from (augmentation seed, key, decision).

Everything here is part of the cache's format: a change makes every stored row unusable.
"""

import hashlib
import struct

_blake2b = hashlib.blake2b
_unpack = struct.Struct("<8Q").unpack
_TO_UNIT = 2.0**-53


def uniforms(decision: str, key: str, aug_seed: int) -> list[float]:
    """Eight independent uniforms in [0, 1) of one named decision, float64 multiples of 2^-53.

    A decision reads its uniforms at fixed places and leaves the rest for what it may need later.

    Args:
        decision: a name without a slash; each name is a stream of its own, so that none can shift another's draws.
        key: the sample's key.
        aug_seed: the augmentation seed.
    """
    words = _unpack(_blake2b(f"{decision}/{aug_seed}/{key}".encode()).digest())
    return [(word >> 11) * _TO_UNIT for word in words]


def bits128(decision: str, key: str, aug_seed: int) -> int:
    """A 128-bit key for a counter-based generator, from a stream named like those of `uniforms`."""
    message = f"{decision}/{aug_seed}/{key}".encode()
    return int.from_bytes(_blake2b(message, digest_size=16).digest(), "little")


def round_to_grid(value: float, bits: int) -> float:
    """The nearest multiple of 2^-bits.

    log, exp, sine and the inverse normal differ in the last digit between C libraries and CPUs; on a grid they agree
    (but for one draw in billions that lies on a boundary).
    """
    steps = 1 << bits
    return round(value * steps) / steps
