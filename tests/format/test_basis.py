"""Laws of the transform tail, from logits to the student's target and through a store."""

import shutil
from dataclasses import replace

import numpy as np
import pydantic
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from teachonce.cache import cache_config
from teachonce.core import errors
from teachonce.format import basis, codec, row_expansion, schema

CLASSES = 12
RANK = 5


def basis_of(rank: int = RANK) -> basis.Basis:
    """Any orthonormal components, under unequal scales."""
    raw = (
        np.random.Philox(key=1).random_raw(CLASSES * CLASSES).reshape(CLASSES, CLASSES) >> np.uint64(40)
    ) / 2**24 - 0.5
    orthonormal = np.linalg.qr(raw)[0]
    scale = np.linspace(0.5, 1.5, CLASSES)
    parts = np.linspace(-4, -2, CLASSES), scale, orthonormal[:rank] / scale
    return basis.Basis(*(np.ascontiguousarray(part, np.float32) for part in parts))


def recipe_of(plain, fitted: basis.Basis, step: float) -> schema.Recipe:
    tail = schema.TransformTail(rank=len(fitted.components_RC), step=step, basis_sha256=fitted.sha256(step))
    return plain.model_copy(update={"tail": tail})


def unfolded(folded: np.ndarray) -> np.ndarray:
    """From the definition: 0, −1, 1, −2, 2 … are kept as 0, 1, 2, 3, 4 …"""
    order = [0, *(sign * size for size in range(1, basis.LIMIT + 1) for sign in (-1, 1))]
    return np.array(order, np.float64)[folded]


LOGITS = st_np.arrays(np.float32, st.tuples(st.integers(1, 3), st.just(CLASSES)), elements=st.floats(-40, 40, width=32))


@given(LOGITS, st.integers(1, CLASSES - 1), st.sampled_from([0.1, 1.0, 8.0]))
@settings(max_examples=150, deadline=None)
def test_kept_classes_are_exact_and_the_others_no_likelier(recipe, logits_BC, k, step):
    fitted = basis_of()
    rows = codec.pack(logits_BC, k, codec.TailCoding(fitted, step))
    assert rows.tail_BR.dtype == np.uint8
    assert rows.tail_BR.max() <= 2 * basis.LIMIT
    logq_BC = row_expansion.full_logp(
        row_expansion.to_tensors(rows), CLASSES, row_expansion.tail_decoder(recipe_of(recipe(3), fitted, step), fitted)
    )
    assert torch.isfinite(logq_BC).all()
    ids = torch.from_numpy(rows.class_id_BK.astype(np.int64))
    logp_BK = torch.from_numpy(rows.logp_BK).float()
    assert torch.equal(logq_BC.gather(1, ids), logp_BK)
    assert (logq_BC <= logp_BK[:, -1:]).sum() >= logq_BC.numel() - ids.numel()
    assert torch.allclose((logq_BC / 3).softmax(dim=1).sum(dim=1), torch.ones(len(logq_BC)))


COEFFICIENTS = st_np.arrays(np.uint8, st.just((3, RANK)), elements=st.integers(0, 2 * basis.LIMIT))


@given(
    st_np.arrays(np.float32, st.just((3, CLASSES)), elements=st.floats(-200, 200, width=32)), COEFFICIENTS, st.data()
)
@settings(max_examples=150, deadline=None)
def test_any_row_is_a_distribution_at_any_tau(recipe, logits_BC, tail_BR, data):
    """Peaky rows, float16 mass past 1, and coefficients that fit nothing, up to their clip."""
    fitted, step = basis_of(), data.draw(st.sampled_from([0.1, 3.0, 20.0]))
    k, tau = data.draw(st.integers(1, CLASSES - 1)), data.draw(st.sampled_from([0.5, 1.0, 2.0, 10.0]))
    rows = codec.pack(logits_BC, CLASSES - 1)
    row = row_expansion.to_tensors(rows) | {"tail": torch.from_numpy(tail_BR)}
    for sketch in (None, row_expansion.tail_decoder(recipe_of(recipe(3), fitted, step), fitted)):
        logq_BC = row_expansion.full_logp(row, CLASSES, sketch, k)
        q_BC = (logq_BC / tau).softmax(dim=1)
        assert torch.isfinite(logq_BC).all()
        assert (q_BC >= 0).all()
        assert torch.allclose(q_BC.sum(dim=1), torch.ones(3), atol=1e-5)


def test_mass_above_one_is_a_distribution_too(recipe):
    # Float16 rounds each of these up: their mass is 1.0004.
    row = {
        "class_id": torch.tensor([[0, 1]]),
        "logp": torch.tensor([[-0.69287, -0.69287]], dtype=torch.float16),
        "tail": torch.full((1, RANK), 3, dtype=torch.uint8),
    }
    assert row["logp"].float().exp().sum() > 1
    logq_BC = row_expansion.full_logp(
        row, CLASSES, row_expansion.tail_decoder(recipe_of(recipe(2), basis_of(), 1.0), basis_of())
    )
    assert torch.isfinite(logq_BC).all()
    assert logq_BC[0, :2].tolist() == row["logp"].float()[0].tolist()
    # What the kept classes leave is below what float16 can tell.
    assert logq_BC[0, 2:].exp().sum() < 2**-7


@given(LOGITS)
@settings(max_examples=50, deadline=None)
def test_all_components_in_fine_steps_give_the_row_back(recipe, logits_BC):
    fitted, step = basis_of(CLASSES), 2.0
    rows = codec.pack(logits_BC, 1, codec.TailCoding(fitted, step))
    logp_BC = basis.log_softmax(logits_BC)
    near_BC = fitted.mean_C + step * unfolded(rows.tail_BR) @ fitted.components_RC
    if rows.tail_BR.max() < 2 * basis.LIMIT - 1:
        # Half a step a component, in scaled nats.
        error_BC = (near_BC - logp_BC) * fitted.scale_C
        assert np.abs(error_BC).max() <= step / 2 * np.sqrt(CLASSES) + 1e-3


def test_a_smaller_k_is_a_prefix_with_the_same_coefficients(recipe):
    fitted = basis_of()
    logits_BC = np.linspace(-3, 3, 2 * CLASSES, dtype=np.float32).reshape(2, CLASSES)
    sketch = row_expansion.tail_decoder(recipe_of(recipe(5), fitted, 0.5), fitted)
    five, two = (row_expansion.to_tensors(codec.pack(logits_BC, k, codec.TailCoding(fitted, 0.5))) for k in (5, 2))
    assert torch.equal(row_expansion.full_logp(five, CLASSES, sketch, 2), row_expansion.full_logp(two, CLASSES, sketch))


def test_where_rounding_leaves_no_mass_the_sketch_is_left_alone(recipe):
    """A teacher this sure leaves less mass than float16 can tell: a shift to it would be noise."""
    fitted, step = basis_of(CLASSES), 0.8
    logits_BC = np.zeros((1, CLASSES), np.float32)
    logits_BC[0, 3] = 25
    rows = codec.pack(logits_BC, 1, codec.TailCoding(fitted, step))
    sketch = row_expansion.tail_decoder(recipe_of(recipe(1), fitted, step), fitted)
    q_BC = (row_expansion.full_logp(row_expansion.to_tensors(rows), CLASSES, sketch) / 5).softmax(dim=1)
    assert (q_BC - (torch.from_numpy(logits_BC) / 5).softmax(dim=1)).abs().sum() / 2 < 0.05


@pytest.fixture
def stored(recipe, shards, write_store_at, tmp_path):
    fitted = basis_of()
    return write_store_at(
        tmp_path / "coded.zarr", shards, recipe_of(recipe(3), fitted, 0.5), aug_seeds=4, seeds_per_unit=2, tail=fitted
    )


def test_a_store_gives_its_rows_and_its_basis_back(stored):
    cache = stored.open()
    assert cache.basis.sha256(1) == basis_of().sha256(1)
    for tar, aug_seed in ((0, 0), (2, 3)):
        logits = stored.logits(tar, aug_seed)
        expected = codec.pack(logits, 3, codec.TailCoding(basis_of(), 0.5))
        rows = cache.block(tar, aug_seed)
        assert {name: array.tolist() for name, array in rows.arrays().items()} == {
            name: array.tolist() for name, array in expected.arrays().items()
        }
    keys = [stored.keys(2)[1], stored.keys(0)[0]]
    assert np.array_equal(cache.rows(keys, 1).tail_BR[0], cache.block(2, 1).tail_BR[1])


@pytest.mark.parametrize("name", ["tail_mean", "tail_scale", "tail_components"])
def test_a_damaged_basis_is_refused(stored, name):
    path = next(path for path in (stored.path / name / "c").rglob("*") if path.is_file())
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(errors.CacheError, match=rf"{name}.*cannot be decoded"):
        stored.open()
    path.unlink()
    with pytest.raises(errors.CacheError, match=rf"{name}.*is missing"):
        stored.open()


def test_a_basis_of_other_numbers_is_refused(stored):
    mean, scale = (stored.path / name / "c/0" for name in ("tail_mean", "tail_scale"))
    mean.unlink()
    shutil.copy(scale, mean)
    with pytest.raises(errors.CacheError, match=r"sha256 of tail\.step and tail_… must be \w{64}\. Got"):
        stored.open()


def test_another_step_is_refused(stored):
    def change(data):
        data["attributes"]["teachonce"]["recipe"]["tail"]["step"] = 0.25
        return data

    stored.edit("zarr.json", change)
    with pytest.raises(errors.CacheError, match=r"sha256 of tail\.step and tail_… must be \w{64}\. Got"):
        stored.open()


def test_a_basis_too_large_to_be_true_is_refused_before_it_is_read(stored):
    def change(data):
        data["attributes"]["teachonce"]["recipe"]["tail"]["rank"] = 4096
        return data

    stored.edit("zarr.json", change)
    with pytest.raises(errors.CacheError, match=r"tail\.rank must be below the 12 classes"):
        stored.open()


def test_coefficients_fold_and_unfold():
    steps = np.arange(-basis.LIMIT, basis.LIMIT + 1)
    identity = basis.Basis(*(np.asarray(part, np.float32) for part in ([0, 0], [1, 1], [[1, -1]])))
    # Of two classes, log-probabilities differ by twice what the component takes of them.
    logits_BC = np.stack([steps / 2, -steps / 2], axis=1).astype(np.float32)
    folded = basis.encode(identity, logits_BC, 1.0)[:, 0]
    assert np.array_equal(basis.unfold(folded), steps)
    assert sorted(folded) == list(range(255))


def forged(name: str, change) -> basis.Basis:
    return replace(basis_of(), **{name: change(getattr(basis_of(), name).copy())})


def at(place, value):
    def change(array):
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("mean_C", at(3, np.nan), "tail_mean/c/0: must hold numbers from -4294967296 to 0. Got nan to nan"),
        ("mean_C", at(3, -np.inf), "tail_mean/c/0: must hold numbers from -4294967296 to 0. Got -inf to -2"),
        ("mean_C", at(3, 0.5), "tail_mean/c/0: must hold numbers from -4294967296 to 0. Got -4 to 0.5"),
        ("scale_C", at(..., 0), "tail_scale/c/0: must hold numbers from 0.0009765625 to 1024. Got 0 to 0"),
        ("scale_C", at(2, -1), "tail_scale/c/0: must hold numbers from 0.0009765625 to 1024. Got -1 to 1.5"),
        ("components_RC", at(..., 0), "tail_components/c/0/0: components times tail_scale must be orthonormal"),
        ("components_RC", at((1, 1), np.nan), "must be orthonormal to 0.00390625. Got products off by nan"),
        ("components_RC", at((1, 1), 3e38), "must be orthonormal to 0.00390625. Got products off by "),
        ("components_RC", lambda array: 2 * array, "must be orthonormal to 0.00390625. Got products off by 3"),
        ("components_RC", lambda array: array[[0, 1, 2, 3, 3]], "Got products off by 1"),
    ],
)
def test_a_basis_that_no_fit_could_give(stored, name, change, what):
    """Its digest is that of the recipe: only what it says is wrong."""
    stored.open()
    wrong = forged(name, change)
    for key, array in wrong.arrays().items():
        zarr.open_array(str(stored.path / key), mode="r+")[...] = array
    stored.edit("zarr.json", lambda data: renamed(data, wrong.sha256(0.5)))
    with pytest.raises(errors.CacheError) as caught:
        stored.open()
    assert what in str(caught.value)
    assert "Fetch it again" in str(caught.value)


def renamed(data, digest: str):
    data["attributes"]["teachonce"]["recipe"]["tail"]["basis_sha256"] = digest
    return data


@pytest.mark.parametrize("step", [5e-324, 1e308, 2**-21, 1025.0])
def test_a_step_that_no_tail_is_told_in(step):
    with pytest.raises(pydantic.ValidationError, match="step"):
        schema.TransformTail(rank=1, step=step, basis_sha256="0" * 64)
    with pytest.raises(pydantic.ValidationError, match="step"):
        cache_config.TransformConfig(rank=1, step=step, fit_tars=1)
