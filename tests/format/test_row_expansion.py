import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from teachonce.format import codec, row_expansion

LOGITS = st_np.arrays(
    np.float32, st.tuples(st.integers(1, 3), st.integers(2, 10)), elements=st.floats(-40, 40, width=32)
)


def spread(rows: codec.Rows, classes: int, k: int | None = None) -> torch.Tensor:
    class_id, logp = torch.from_numpy(rows.class_id_BK.astype(np.int64)), torch.from_numpy(rows.logp_BK)
    return row_expansion.expand_flat_tail(class_id[:, :k], logp[:, :k], classes)


@given(LOGITS, st.data())
@settings(max_examples=200, deadline=None)
def test_a_distribution_that_keeps_what_was_stored(logits_BC, data):
    classes = logits_BC.shape[1]
    k = data.draw(st.integers(1, classes - 1))
    rows = codec.pack(logits_BC, k)
    logq_BC = spread(rows, classes)
    kept_BC = torch.zeros(logq_BC.shape, dtype=torch.bool).scatter(
        1, torch.from_numpy(rows.class_id_BK.astype(np.int64)), value=True
    )
    logp_BK = torch.from_numpy(rows.logp_BK).float()
    assert logq_BC.dtype == torch.float32
    assert torch.isfinite(logq_BC).all()
    for row in range(len(logits_BC)):
        assert torch.equal(logq_BC[row][torch.from_numpy(rows.class_id_BK[row].astype(np.int64))], logp_BK[row])
        tail = logq_BC[row][~kept_BC[row]]
        assert (tail == tail[0]).all()
        assert tail[0] <= logp_BK[row, -1]
    # Float16 may put the kept mass off by a little, and caps the tail where it is flat; never by more.
    assert torch.allclose(logq_BC.exp().sum(dim=1), torch.ones(len(logits_BC)), atol=2e-4 * (classes + 1))


@given(LOGITS, st.data())
@settings(max_examples=100, deadline=None)
def test_a_smaller_k_comes_from_the_prefix(logits_BC, data):
    classes = logits_BC.shape[1]
    k = data.draw(st.integers(1, classes - 1))
    smaller = data.draw(st.integers(1, k))
    logq_BC = spread(codec.pack(logits_BC, k), classes, smaller)
    assert torch.equal(logq_BC, spread(codec.pack(logits_BC, smaller), classes))


def test_the_left_over_mass_is_spread_evenly():
    logp_BK = torch.tensor([[0.5, 0.25]]).log()
    probabilities_BC = row_expansion.expand_flat_tail(torch.tensor([[3, 1]]), logp_BK, 7).exp()
    assert torch.allclose(probabilities_BC, torch.tensor([[0.05, 0.25, 0.05, 0.5, 0.05, 0.05, 0.05]]), atol=1e-7)


def test_mass_above_one_leaves_a_tail_that_is_small_but_not_nothing():
    # Float16 rounds each of these up: their mass is 1.0004.
    logp_BK = torch.tensor([[-0.69287, -0.69287]], dtype=torch.float16)
    assert logp_BK.float().exp().sum() > 1
    logq_BC = row_expansion.expand_flat_tail(torch.tensor([[0, 1]]), logp_BK, 4)
    assert torch.isfinite(logq_BC).all()
    assert logq_BC[0, 2:].exp().tolist() == pytest.approx([2.0**-25] * 2)


def test_no_unkept_class_stands_above_the_last_kept_one():
    # An honest row cannot hold this; a prefix of a rounded one nearly can.
    logq_BC = row_expansion.expand_flat_tail(torch.tensor([[0, 1]]), torch.tensor([[0.3, 0.01]]).log(), 3)
    assert logq_BC[0, 2] == logq_BC[0, 1]


def test_takes_the_stored_dtypes_and_needs_no_gradient():
    logq_BC = row_expansion.expand_flat_tail(
        torch.tensor([[0]], dtype=torch.int32), torch.tensor([[-0.5]], dtype=torch.float16), 3
    )
    assert logq_BC.dtype == torch.float32
    assert not logq_BC.requires_grad


NOTE = np.array([[30, 5, 2, 2]], np.float32)
"""The example that started the project: what a temperature is for."""
AT_1 = [1.0, 1.3888e-11, 6.9144e-13, 6.9144e-13]
AT_10 = [0.8308, 0.0682, 0.0505, 0.0505]


@pytest.mark.parametrize("k", ["all", 3, 2])
@pytest.mark.parametrize(("tau", "expected"), [(1, AT_1), (10, AT_10)])
def test_softened_example(k, tau, expected):
    rows = codec.pack(NOTE, k)
    logq_BC = torch.from_numpy(rows.logits_BC) if k == "all" else spread(rows, 4)
    softened = (logq_BC / tau).softmax(dim=1)[0].tolist()
    if k == 2:
        # The left-over mass, 1.4e-12, is lost to rounding of 1 − mass: the tail stands at its cap, the last kept class.
        expected = [expected[0], *[expected[1]] * 3] if tau == 1 else torch.tensor([30, 5, 5, 5]).div(10).softmax(0)
        expected = list(map(float, expected))
    assert softened == pytest.approx(expected, rel=2e-3 if k == 2 else 1e-3)
