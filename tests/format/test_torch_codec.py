"""The codec on a device against the codec: the same classes, and the rest within its last rounding."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from teachonce.format import basis, codec, fidelity, fidelity_measurement, row_expansion, schema, torch_codec

CLASSES, RANK = 12, 5
CPU = torch.device("cpu")
LOGIT = (
    st.floats(-60, 60, width=32)
    | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), 2.0**-126])
    | st.floats(-(2.0**127), 2.0**127, width=32)
)


def basis_of() -> basis.Basis:
    """Any components, under unequal scales."""
    bits = np.random.Philox(key=1).random_raw(RANK * CLASSES).reshape(RANK, CLASSES)
    components = np.linalg.qr(((bits >> np.uint64(40)) / 2.0**24 - 0.5).T)[0].T
    scale = np.linspace(0.5, 1.5, CLASSES)
    parts = np.linspace(-4, -2, CLASSES), scale, components / scale
    return basis.Basis(*(np.ascontiguousarray(part, np.float32) for part in parts))


def rounded(logits_BC: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """As a bfloat16 network answers: hardly a row without ties."""
    return torch.from_numpy(logits_BC).bfloat16().float().numpy()


@st.composite
def cases(draw: st.DrawFn, classes: int | None = None) -> tuple[npt.NDArray[np.float32], int]:
    count = classes or draw(st.integers(2, 40))
    logits_BC = draw(st_np.arrays(np.float32, (draw(st.integers(1, 4)), count), elements=LOGIT))
    return rounded(logits_BC) if draw(st.booleans()) else logits_BC, draw(st.integers(1, count - 1))


def packed(logits_BC: npt.NDArray[np.float32], k, tail: codec.TailCoding | None = None) -> codec.Rows:
    coded = torch_codec.prepare_tail(tail, CPU) if tail else None
    return torch_codec.to_rows(torch_codec.pack_on_device(torch.from_numpy(logits_BC), k, coded), logits_BC.shape[1])


def ordinal(values: npt.NDArray[np.float16]) -> npt.NDArray[np.int32]:
    """Place of a float16 among all of them: neighbours differ by one."""
    bits = values.view(np.int16).astype(np.int32)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)


def alike(rows: codec.Rows, expected: codec.Rows) -> None:
    assert {name: array.dtype for name, array in rows.arrays().items()} == {
        name: array.dtype for name, array in expected.arrays().items()
    }
    assert np.array_equal(rows.class_id_BK, expected.class_id_BK)
    assert np.abs(ordinal(rows.logp_BK) - ordinal(expected.logp_BK)).max() <= 1
    # Absolutely, what a sum of 40 classes rounds in float64.
    np.testing.assert_allclose(rows.lse_B, expected.lse_B, rtol=2.0**-23, atol=40 * 2.0**-53)


@given(cases())
@settings(max_examples=300, deadline=None)
def test_rows_are_those_of_the_codec(case):
    logits_BC, k = case
    alike(packed(logits_BC, k), codec.pack(logits_BC, k))


@given(cases(CLASSES), st.sampled_from([0.1, 1.0, 8.0]))
@settings(max_examples=200, deadline=None)
def test_a_coded_tail_is_that_of_the_codec(case, step):
    logits_BC, k = case
    fitted = basis_of()
    tail = codec.TailCoding(fitted, step)
    rows, reference = packed(logits_BC, k, tail), codec.pack(logits_BC, k, tail)
    alike(rows, reference)
    apart_BR = basis.unfold(rows.tail_BR) - basis.unfold(reference.tail_BR)
    assert np.abs(apart_BR).max() <= 1
    # Only where the coefficient lies half way between two steps.
    wide_C = fitted.scale_C.astype(np.float64)
    exact_BR = ((basis.log_softmax(logits_BC) - fitted.mean_C) * wide_C) @ (fitted.components_RC * wide_C).T / step
    half_way_BR = np.abs(np.abs(exact_BR - np.trunc(exact_BR)) - 0.5) < 1e-9 * (1 + np.abs(exact_BR))
    assert half_way_BR[apart_BR != 0].all()


def test_a_thousand_classes_with_ties_in_every_row():
    bits = np.random.Philox(key=3).random_raw(64 * 1000).reshape(64, 1000)
    logits_BC = rounded(((bits >> np.uint64(40)) / 2.0**24 * 20 - 10).astype(np.float32))
    expected = codec.pack(logits_BC, 11)
    top_BK = np.take_along_axis(logits_BC, expected.class_id_BK.astype(np.int64), axis=1)
    assert (np.diff(top_BK, axis=1) == 0).any(axis=1).mean() > 0.5
    arrays = torch_codec.pack_on_device(torch.from_numpy(logits_BC), 11)
    alike(torch_codec.to_rows(arrays, 1000), expected)


def test_zeros_of_either_sign_are_equal():
    logits_BC = np.array([[-0.0, 0.0, -0.0, -1.0, 0.0]], np.float32)
    assert packed(logits_BC, 4).class_id_BK.tolist() == [[0, 1, 2, 4]]


def test_many_classes_have_wider_ids_and_all_keeps_the_logits():
    logits_BC = np.zeros((1, 65_536), np.float32)
    assert packed(logits_BC, 2).class_id_BK.dtype == np.uint32
    whole = packed(logits_BC, "all")
    assert whole.arrays().keys() == {"logits"}
    assert np.array_equal(whole.logits_BC, logits_BC)


def test_what_is_not_finite_is_packed_without_a_word():
    logits_BC = np.array([[np.nan] * CLASSES, [np.inf, *[0.0] * (CLASSES - 1)]], np.float32)
    assert packed(logits_BC, 3, codec.TailCoding(basis_of(), 1.0)).tail_BR.shape == (2, 5)


@pytest.mark.parametrize("coded", [False, True], ids=["flat", "coded"])
def test_distances_are_those_of_the_rows_as_stored(recipe, coded):
    bits = np.random.Philox(key=4).random_raw(20 * CLASSES).reshape(20, CLASSES)
    logits_BC = ((bits >> np.uint64(40)) / 2.0**24 * 12).astype(np.float32)
    fitted = basis_of()
    tail, sketch = None, None
    if coded:
        form = schema.TransformTail(rank=len(fitted.components_RC), step=0.5, basis_sha256=fitted.sha256(0.5))
        tail, sketch = (
            codec.TailCoding(fitted, 0.5),
            row_expansion.tail_decoder(recipe(3).model_copy(update={"tail": form}), fitted),
        )
    row = torch_codec.pack_on_device(
        torch.from_numpy(logits_BC), 6, torch_codec.prepare_tail(tail, CPU) if tail else None
    )
    measured = fidelity_measurement.row_distances(torch.from_numpy(logits_BC), row, sketch)
    assert measured.shape == (len(fidelity.measured_ks(6)) * len(fidelity.TAUS), 2, 20)
    on_device = fidelity.distance_statistics(fidelity_measurement.accumulate_distances(measured.numpy(), 6))
    reference = fidelity.distance_statistics(
        fidelity_measurement.measure_rows(logits_BC, codec.pack(logits_BC, 6, tail), sketch)
    )
    assert list(on_device) == list(reference)
    for name, values in reference.items():
        assert on_device[name]["tv_mean"] == pytest.approx(values["tv_mean"], rel=1e-2, abs=1e-5)
