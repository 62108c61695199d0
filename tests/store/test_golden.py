"""A store of each format and renderer, committed: every later release must read these very rows."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from teachonce.core import hashing
from teachonce.format import codec, row_expansion, schema
from teachonce.store import store_reader
from teachonce.views import view_policy

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = {
    (0, 0): (
        [[3, 6, 1], [4, 7, 2], [5, 0, 3]],
        [
            [-0.367431640625, -1.3671875, -3.3671875],
            [-0.364501953125, -1.3642578125, -3.365234375],
            [-0.1883544921875, -2.1875, -3.1875],
        ],
        [6.367425918579102, 6.489471912384033, 6.438311576843262],
    ),
    (1, 3): (
        [[5, 0, 3], [6, 1, 4]],
        [[-0.1883544921875, -2.1875, -3.1875], [-0.1881103515625, -2.1875, -3.1875]],
        [6.438311576843262, 6.563135623931885],
    ),
}


FIDELITY = {
    3: {"tv_mean": 0.06952704, "tv_p99": 0.09821719, "kl_mean": 0.05116616, "kl_p99": 0.06611690},
    1: {"tv_mean": 0.06952704, "tv_p99": 0.09821719, "kl_mean": 0.05116616, "kl_p99": 0.06611690},
    2: {"tv_mean": 0.05920594, "tv_p99": 0.08058422, "kl_mean": 0.06947246, "kl_p99": 0.11970850},
}
TAIL = [[5, -12], [-1, 10], [4, -1]]


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_cache", GOLDEN / "make_cache.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["cache_v1", "cache_v2", "cache_v3", "cache_v3_renderer_1", "cache_v3_renderer_2"])
def name(request):
    return request.param


@pytest.fixture
def golden(name):
    return store_reader.open(GOLDEN / name)


def test_there_is_one_of_each(maker):
    assert {version for version, _ in maker.STORES.values()} == set(schema.FORMATS)
    assert {renderer for _, renderer in maker.STORES.values()} == set(range(view_policy.RENDERER + 1))


@pytest.mark.parametrize("place", FILES)
def test_rows_are_those_of_the_day_they_were_written(golden, place):
    class_id, logp, lse = FILES[place]
    rows = golden.block(*place)
    assert rows.class_id_BK.dtype == np.uint16
    assert rows.class_id_BK.tolist() == class_id
    assert rows.logp_BK.tolist() == logp
    assert rows.lse_B.tolist() == pytest.approx(lse, rel=1e-7)


def test_every_row_is_that_of_its_logits(golden, maker):
    for tar, keys in enumerate(maker.KEYS):
        assert golden.keys(tar) == keys
        assert np.array_equal(golden.canary(tar), maker.pixels(tar))
        assert golden.unit(tar, 1).canary.aug_seed == 2
        for aug_seed in range(maker.AUG_SEEDS):
            rows, expected = golden.block(f"{tar}.tar", aug_seed), codec.pack(maker.logits(tar, aug_seed), maker.K)
            assert np.array_equal(rows.class_id_BK, expected.class_id_BK)
            assert np.array_equal(rows.logp_BK, expected.logp_BK)
            assert np.allclose(rows.lse_B, expected.lse_B, rtol=1e-7)


def test_what_it_says_of_itself(golden, maker, name):
    version, renderer = maker.STORES[name]
    assert golden.recipe == maker.recipe(version, renderer)
    assert golden.recipe.policy.renderer == renderer
    assert (golden.extent.aug_seeds, golden.extent.seeds_per_unit, golden.extent.rows_per_tar) == (4, 2, 4)
    assert [tar.keys_crc32 for tar in golden.extent.tars] == [hashing.keys_crc32(keys) for keys in maker.KEYS]
    assert golden.fidelity["k=3,tau=2"] == pytest.approx(FIDELITY[version], rel=1e-5)


def test_a_store_without_a_renderer_keeps_its_identity(golden):
    written = json.loads((golden.path / "zarr.json").read_text(encoding="utf-8"))["attributes"]["teachonce"]["recipe"]
    assert ("renderer" in written["policy"]) == bool(golden.recipe.policy.renderer)
    dumped = golden.recipe.model_dump(mode="json")
    assert dumped["policy"].keys() - written["policy"].keys() <= {"mix", "repeats"}
    assert dumped == dumped | written | {"policy": dumped["policy"] | written["policy"]}


def test_todays_writer_makes_the_same_store(maker, golden, name, tmp_path):
    maker.make(tmp_path / "cache", *maker.STORES[name])
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    again = store_reader.open(tmp_path / "cache")
    assert (again.recipe, again.extent) == (golden.recipe, golden.extent)
    for array in ("class_id", "logp", "lse", "key", "canary"):
        assert (again.path / array / "zarr.json").read_bytes() == (golden.path / array / "zarr.json").read_bytes()
    for tar in range(2):
        for aug_seed in range(4):
            for part, array in golden.block(tar, aug_seed).arrays().items():
                assert np.array_equal(again.block(tar, aug_seed).arrays()[part], array)


def test_a_coded_tail_reads_as_its_formula_says():
    golden = store_reader.open(GOLDEN / "cache_v2")
    rows = golden.block(0, 0)
    assert rows.tail_BR.tolist() == [[2 * abs(steps) - (steps < 0) for steps in row] for row in TAIL]
    m, b, step = golden.basis.mean_C, golden.basis.components_RC, 0.5
    z = m + step * np.array(TAIL, np.float64) @ b
    logq_BC = row_expansion.full_logp(
        row_expansion.to_tensors(rows), 8, row_expansion.tail_decoder(golden.recipe, golden.basis)
    )
    for row, (ids, logp) in enumerate(zip(rows.class_id_BK.astype(int), rows.logp_BK.astype(np.float64), strict=True)):
        rest, mass = 1 - np.exp(logp).sum(), np.exp(np.delete(z[row], ids)).sum()
        expected = np.minimum(z[row] + np.log((rest + 2**-8) / (mass + 2**-8)), logp[-1])
        expected[ids] = logp
        assert torch.allclose(logq_BC[row].double(), torch.from_numpy(expected), atol=1e-5)


def test_reads_from_a_read_only_folder(tmp_path):
    shutil.copytree(GOLDEN / "cache_v1", tmp_path / "cache")
    folders = [tmp_path / "cache", *(path for path in (tmp_path / "cache").rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert store_reader.open(tmp_path / "cache").rows(["n03/y"], 3).class_id_BK.tolist() == [[6, 1, 4]]
    finally:
        for folder in folders:
            folder.chmod(0o755)
