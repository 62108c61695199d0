import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from teachonce.format import codec

HALF = 2.0**-11
"""Relative rounding of float16."""
LOGIT = st.floats(-60, 60, width=32) | st.integers(-3, 3).map(float) | st.floats(-(2.0**100), 2.0**100, width=32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], int]:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 12)))
    return draw(st_np.arrays(np.float32, shape, elements=LOGIT)), draw(st.integers(1, shape[1] - 1))


def exact(logits_BC: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Log-softmax in float64."""
    wide = logits_BC.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@given(cases())
@settings(max_examples=200, deadline=None)
def test_the_likeliest_by_falling_logit_then_lower_id(case):
    logits_BC, k = case
    rows = codec.pack(logits_BC, k)
    for row, ids in enumerate(rows.class_id_BK):
        expected = sorted(range(logits_BC.shape[1]), key=lambda c: (-logits_BC[row, c], c))[:k]
        assert ids.tolist() == expected
    assert (np.diff(rows.logp_BK.astype(np.float64), axis=1) <= 0).all()


@given(cases())
@settings(max_examples=200, deadline=None)
def test_log_probabilities_are_the_full_softmax_rounded_once(case):
    logits_BC, k = case
    rows = codec.pack(logits_BC, k)
    ids = rows.class_id_BK.astype(np.int64)
    expected = np.take_along_axis(exact(logits_BC), ids, axis=1)
    low = np.float64(np.finfo(np.float16).min)
    bound = np.abs(expected) * HALF + 2.0**-25
    logp_BK = rows.logp_BK.astype(np.float64)
    assert np.isfinite(logp_BK).all()
    assert (logp_BK <= 0).all()
    assert (np.abs(logp_BK - np.maximum(expected, low)) <= bound).all()
    mass, expected_mass = np.exp(logp_BK).sum(axis=1), np.exp(expected).sum(axis=1)
    # A probability p is off by p · |ln p| · 2^-11, at most 2^-11 / e of the whole for each class.
    assert (mass <= 1 + k * 2e-4).all()
    assert (np.abs(mass - expected_mass) <= k * 2e-4).all()


@given(cases())
@settings(max_examples=200, deadline=None)
def test_the_logit_comes_back(case):
    logits_BC, k = case
    rows = codec.pack(logits_BC, k)
    logit = np.take_along_axis(logits_BC, rows.class_id_BK.astype(np.int64), axis=1).astype(np.float64)
    logp, lse = rows.logp_BK.astype(np.float64), rows.lse_B.astype(np.float64)[:, None]
    inside = logp > np.finfo(np.float16).min
    bound = np.abs(logp) * HALF * 1.001 + np.abs(lse) * 2.0**-23 + 2.0**-24
    assert (np.abs(logp + lse - logit)[inside] <= np.broadcast_to(bound, logit.shape)[inside]).all()


@given(cases())
@settings(max_examples=200, deadline=None)
def test_a_smaller_k_is_a_prefix_and_a_batch_is_its_rows(case):
    logits_BC, k = case
    rows = codec.pack(logits_BC, k)
    for smaller in range(1, k):
        for name, array in codec.pack(logits_BC, smaller).arrays().items():
            whole = rows.arrays()[name]
            assert np.array_equal(array, whole if name == "lse" else whole[:, :smaller])
    for row in range(len(logits_BC)):
        for name, array in codec.pack(logits_BC[row : row + 1], k).arrays().items():
            assert np.array_equal(array, rows.arrays()[name][row : row + 1])


@pytest.mark.parametrize(("classes", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_class_ids_leave_room_for_the_fill(classes, dtype):
    logits = np.zeros((1, classes), np.float32)
    logits[0, -1] = 5
    rows = codec.pack(logits, 2)
    assert rows.class_id_BK.dtype == dtype
    assert rows.class_id_BK.tolist() == [[classes - 1, 0]]


def test_extreme_logits_stay_finite():
    big = np.float32(3e38)
    rows = codec.pack(np.array([[big, 0, -big], [-big, -big, -big], [0, -7e4, -1e5]], np.float32), 2)
    assert rows.logp_BK[0].tolist() == [0, -65504]
    assert rows.logp_BK[1].tolist() == [np.float16(-np.log(3.0))] * 2
    assert rows.logp_BK[2].tolist() == [0, -65504]
    assert np.isfinite(rows.lse_B).all()


def test_all_keeps_the_logits_themselves():
    logits = np.array([[1.1, -2.7, 3e8]], np.float32)
    rows = codec.pack(logits, "all")
    assert rows.arrays().keys() == {"logits"}
    assert np.array_equal(rows.logits_BC, logits)


def test_arrays_go_back_and_forth():
    rows = codec.pack(np.arange(8, dtype=np.float32).reshape(2, 4), 2)
    again = codec.rows_from_arrays(rows.arrays())
    assert again.arrays().keys() == rows.arrays().keys() == {"class_id", "logp", "lse"}
    assert all(np.array_equal(again.arrays()[name], array) for name, array in rows.arrays().items())
