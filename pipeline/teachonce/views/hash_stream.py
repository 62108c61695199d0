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
    # A hash, not a generator: without a state, a view is the same in any order, process and batch, and no release of a
    # library can change it. The key comes last, as it alone may hold a slash: no two streams share a message.
    words = _unpack(_blake2b(f"{decision}/{aug_seed}/{key}".encode()).digest())
    # The upper 53 bits, which float64 holds exactly: rounding could give 1, which no decision expects.
    return [(word >> 11) * _TO_UNIT for word in words]


def bits128(decision: str, key: str, aug_seed: int) -> int:
    """A 128-bit key for a counter-based generator, from a stream named like those of `uniforms`.

    Args:
        decision: as in `uniforms`.
        key: the sample's key.
        aug_seed: the augmentation seed.
    """
    message = f"{decision}/{aug_seed}/{key}".encode()
    return int.from_bytes(_blake2b(message, digest_size=16).digest(), "little")


def round_to_grid(value: float, bits: int) -> float:
    """The nearest multiple of 2^-bits.

    log, exp, sine and the inverse normal differ in the last digit between C libraries and CPUs; on a grid they agree
    (but for one draw in billions that lies on a boundary).
    """
    steps = 1 << bits
    # A power of two: the division is exact, so that the grid has the same points everywhere.
    return round(value * steps) / steps
