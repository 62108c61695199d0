"""Write, read: the same rows, the same bytes."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from teachonce.cache import store_writer
from teachonce.core import errors
from teachonce.format import codec
from teachonce.store import store_reader


def files_of(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def equal(rows: codec.Rows, expected: codec.Rows) -> None:
    assert rows.arrays().keys() == expected.arrays().keys()
    for name, array in expected.arrays().items():
        assert rows.arrays()[name].dtype == array.dtype
        assert np.array_equal(rows.arrays()[name], array), name


@pytest.mark.parametrize("k", ["all", 3])
def test_blocks_are_what_was_packed(store_of, k):
    store = store_of(k)
    cache = store.open()
    for tar in range(3):
        for aug_seed in range(4):
            equal(cache.block(tar, aug_seed), codec.pack(store.logits(tar, aug_seed), k))
    assert len(cache.block(2, 0).arrays()["logits" if k == "all" else "logp"]) == 4


def test_a_tar_goes_by_position_name_or_sha256(store_of):
    store = store_of(3)
    cache = store.open()
    entry = store.shards.index.shardlist[1]
    for name in (1, entry.url, entry.sha256):
        equal(cache.block(name, 3), codec.pack(store.logits(1, 3), 3))
        assert list(cache.keys(name)) == store.keys(1)


@pytest.mark.parametrize("k", ["all", 3])
def test_rows_of_any_keys_in_any_order_equal_their_blocks(store_of, k):
    store = store_of(k)
    cache = store.open()
    keys = [key for tar in range(3) for key in store.keys(tar)]
    picked = [keys[place] for place in (15, 0, 7, 3, 7, 12, 1)]
    whole = {
        name: np.concatenate([cache.block(tar, 2).arrays()[name] for tar in range(3)])
        for name in cache.block(0, 2).arrays()
    }
    arrays = cache.rows(picked, 2).arrays()
    for name, array in whole.items():
        assert np.array_equal(arrays[name], array[[keys.index(key) for key in picked]])


def test_what_is_not_there_is_refused(store_of):
    cache = store_of(3).open()
    with pytest.raises(errors.IdentityError, match=r"train\.zarr: has no row of 'nobody' \(2 keys missing\)\. Grow it"):
        cache.rows(["pic-0000", "nobody", "else"], 0)
    with pytest.raises(errors.IdentityError, match=r"has no rows of other\.tar; it holds 3 tars\. Grow it"):
        cache.block("other.tar", 0)
    for aug_seed in (-1, 4):
        with pytest.raises(errors.IdentityError, match=rf"aug_seed must be in 0…3\. Got {aug_seed}\. Grow it"):
            cache.block(0, aug_seed)


@pytest.mark.parametrize("k", ["all", 3])
def test_two_writes_give_the_same_bytes(store_of, write_store_at, tmp_path, k):
    first = store_of(k)
    again = write_store_at(tmp_path / "train.zarr", first.shards, first.recipe, aug_seeds=4, seeds_per_unit=2)
    digests = files_of(again.path)
    assert digests == files_of(store_of(k).path)
    assert len(digests) == 1 + 1 + (3 if k == "all" else 5) + 3 * 2 + 3 * 2 * (1 if k == "all" else 3)


def test_objects_are_links_that_nobody_may_write(write_store_at, shards, recipe, tmp_path):
    store = write_store_at(tmp_path / "train.zarr", shards, recipe(3), aug_seeds=2, seeds_per_unit=2)
    path = store.object("logp", 1)
    assert path.stat().st_nlink == 2
    assert path.stat().st_mode & 0o222 == 0


def test_growth_leaves_the_old_objects_as_they_are(store_of, write_store_at, shards, recipe, tmp_path):
    store = write_store_at(tmp_path / "train.zarr", shards, recipe(3), aug_seeds=6, seeds_per_unit=2)
    old, new = files_of(store_of(3).path), files_of(store.path)
    objects = {name: digest for name, digest in old.items() if "/c/" in name}
    assert objects.items() <= new.items()


def test_canary_and_records(store_of):
    cache = store_of(3).open()
    assert cache.canary(0).shape == (3, 16, 16)
    assert hashlib.sha256(cache.canary(1).tobytes()).hexdigest() == cache.unit(1, 0).canary.sha256
    assert {(unit.tar, unit.group) for unit in cache.units()} == {(tar, group) for tar in range(3) for group in (0, 1)}
    assert cache.stored_bytes() == sum(path.stat().st_size for path in cache.path.rglob("*") if path.is_file())


def test_fidelity_is_the_sum_over_units(store_of):
    cache = store_of(3).open()
    assert set(cache.fidelity) == {f"k={k},tau={tau}" for k in (3, 1) for tau in (1, 2, 3, 5, 10)}
    parts = [unit.fidelity["k=3,tau=2"] for unit in cache.units()]
    assert sum(part.views for part in parts) == 32
    assert cache.fidelity["k=3,tau=2"]["kl_mean"] == pytest.approx(sum(part.kl for part in parts) / 32)
    assert store_of("all").open().fidelity == {}


def test_zarr_alone_reads_it(store_of):
    import zarr

    store = store_of(3)
    group = zarr.open_group(str(store.path), mode="r")
    assert group["logp"].shape == (3, 4, 6, 3)
    assert np.array_equal(group["logp"][1, 2], store.open().block(1, 2).logp_BK)
    assert np.isnan(group["logp"][2, 0, 4:]).all()
    assert (group["class_id"][2, 0, 4:] == 65_535).all()
    assert group["key"][2].tolist() == ["pic-0012", "pic-0013", "pic-0014", "pic-0015", "", ""]
    assert group.attrs["teachonce"]["format"] == 1
    assert json.loads((store.path / "units.json").read_text())[0]["group"] == 0


def test_a_key_in_two_tars_must_be_asked_for_by_block(write_shards_at, write_store_at, recipe, tmp_path):
    shards = write_shards_at(tmp_path / "shards", rows=12)
    twin = shards.index.model_copy(update={"shardlist": (shards.index.shardlist[0],) * 2})
    shards.index = twin
    store = write_store_at(tmp_path / "train.zarr", shards, recipe(3), aug_seeds=1, seeds_per_unit=1)
    cache = store_reader.open(store.path)
    assert cache.block(1, 0).logp_BK.shape == (6, 3)
    with pytest.raises(errors.CacheError, match=r"key 'pic-0000' is in train-000000\.tar and in"):
        cache.rows(["pic-0000"], 0)


def test_a_black_canary_is_an_object_all_the_same(store_of, tmp_path):
    store = store_of(3)
    rows = [codec.pack(store.logits(0, aug_seed), 3) for aug_seed in (0, 1)]
    answers = store_writer.UnitRows(rows, store.keys(0), np.zeros_like(store.open().canary(0)))
    unit = store_writer.write_unit(tmp_path / "unit", store.recipe, store.extent, answers, store.open().unit(0, 0))
    assert unit.objects["canary"] == hashlib.sha256((tmp_path / "unit/canary/c/0/0/0/0").read_bytes()).hexdigest()
