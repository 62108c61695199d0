"""Google's tensorstore, a reader of Zarr that shares no code with ours, reads the golden stores: all arrays but `key`.

It has no type for strings, so that `key` is refused at its data type.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from teachonce.format import layout, schema
from teachonce.store import store_reader

GOLDEN = Path(__file__).parents[1] / "golden"

# In a process of its own: tensorstore aborts children that are forked after its import.
SCRIPT = """
import sys, numpy, tensorstore
store, out = sys.argv[1:3]
arrays = {}
for name in sys.argv[3:]:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store}/{name}/"}}
    try:
        arrays[name] = tensorstore.open(spec, read=True).result().read().result()
    except ValueError as error:
        arrays[name] = str(error)
numpy.savez(out, **arrays)
"""


@pytest.fixture(scope="module", params=schema.FORMATS)
def cache(request):
    return store_reader.open(GOLDEN / f"cache_v{request.param}")


@pytest.fixture(scope="module")
def specs(cache):
    return layout.array_specs(cache.recipe, cache.extent.rows_per_tar)


@pytest.fixture(scope="module")
def arrays_read(cache, specs, tmp_path_factory):
    """What tensorstore reads of each array: whole, rows without a sample included."""
    names = [path.parent.name for path in cache.path.glob("*/zarr.json")]
    assert set(names) == set(specs)
    out = tmp_path_factory.mktemp("tensorstore") / "arrays.npz"
    subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT, cache.path, out, *names], check=True)
    with np.load(out) as arrays:
        return dict(arrays)


def test_every_array_but_the_keys_is_read(arrays_read, specs, cache):
    assert "string data type is not one of the supported data types" in str(arrays_read.pop("key"))
    tars, aug_seeds = len(cache.extent.tars), cache.extent.aug_seeds
    for name, array in arrays_read.items():
        assert array.dtype == specs[name].dtype
        assert array.shape == layout.array_shape(specs[name], tars=tars, aug_seeds=aug_seeds)


def test_rows_are_ours_and_the_room_behind_them_is_fill(arrays_read, specs, cache):
    compared = set()
    for tar, entry in enumerate(cache.extent.tars):
        for aug_seed in range(cache.extent.aug_seeds):
            for name, ours in cache.block(tar, aug_seed).arrays().items():
                rows = arrays_read[name][tar, aug_seed]
                rows = rows.T if specs[name].rows_last else rows
                assert np.array_equal(rows[: entry.nsamples], ours)
                room = rows[entry.nsamples :]
                assert len(room) == cache.extent.rows_per_tar - entry.nsamples > 0
                assert np.array_equal(room, np.full_like(room, specs[name].fill), equal_nan=room.dtype.kind == "f")
                compared.add(name)
    assert compared == set(cache.row_names)


def test_canaries_and_basis_are_ours(arrays_read, cache):
    for tar in range(len(cache.extent.tars)):
        assert np.array_equal(arrays_read["canary"][tar], cache.canary(tar))
    basis = {name: array for name, array in arrays_read.items() if name.startswith("tail_")}
    ours = cache.basis.arrays() if cache.basis else {}
    assert basis.keys() == ours.keys()
    assert all(np.array_equal(basis[name], array) for name, array in ours.items())
