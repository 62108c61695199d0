import hashlib
import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from teachonce.views import hash_stream


def test_uniforms_are_the_documented_bits():
    digest = hashlib.blake2b(b"crop.0/7/n01").digest()
    words = [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 64, 8)]
    assert hash_stream.uniforms("crop.0", "n01", 7) == [math.ldexp(word >> 11, -53) for word in words]


def test_every_part_of_the_name_matters():
    names = itertools.product(("flip", "crop"), ("a", "b", "a/b"), (0, 1, -1, 10))
    drawn = {tuple(hash_stream.uniforms(decision, key, seed)) for decision, key, seed in names}
    assert len(drawn) == 2 * 3 * 4


def test_uniforms_are_uniform_and_independent():
    u_NU = np.array([hash_stream.uniforms("test", f"key{n % 100}", n // 100) for n in range(4000)])
    assert u_NU.min() >= 0
    assert u_NU.max() < 1
    for column_N in u_NU.T:
        assert stats.kstest(column_N, "uniform").pvalue > 1e-4
    correlation_UU = np.corrcoef(u_NU.T) - np.eye(8)
    assert np.abs(correlation_UU).max() < 5 / math.sqrt(4000)
    along_seeds = np.corrcoef(u_NU[:-100, 0], u_NU[100:, 0])[0, 1]
    assert abs(along_seeds) < 5 / math.sqrt(4000)


def test_noise_keys_fill_128_bits():
    keys = [hash_stream.bits128("erase.noise", "k", seed) for seed in range(200)]
    assert len(set(keys)) == 200
    ones = [sum(key >> bit & 1 for key in keys) for bit in range(128)]
    assert min(ones) > 50
    assert max(ones) < 150


@given(st.floats(-100, 100), st.integers(4, 30))
def test_snap_is_the_nearest_point_and_idempotent(value, bits):
    snapped = hash_stream.round_to_grid(value, bits)
    assert (snapped * 2**bits).is_integer()
    assert abs(snapped - value) <= 2.0 ** -(bits + 1)
    assert hash_stream.round_to_grid(snapped, bits) == snapped


@given(st.floats(-4, 4))
def test_snap_hides_the_last_digit(value):
    # Away from a boundary, neighbouring floats fall on one point.
    if abs((value * 2**20) % 1 - 0.5) > 1e-6:
        assert hash_stream.round_to_grid(value, 20) == hash_stream.round_to_grid(math.nextafter(value, math.inf), 20)
