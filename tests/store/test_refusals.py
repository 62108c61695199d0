"""Each damage by its message. Nothing here may give a row that was not written."""

import json
import os
import re
import shutil
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import zarr

from teachonce.core import errors, files
from teachonce.store import fingerprint, store_reader


def message(act) -> str:
    with pytest.raises(errors.CacheError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1500
    return text


def refused(store, pattern: str) -> None:
    text = message(store.open)
    assert str(store.path) in text
    assert re.search(pattern, text), text


def test_no_store(tmp_path):
    assert "is not a whole cache" in message(lambda: store_reader.open(tmp_path / "none.zarr"))
    assert "Fetch it again: dvc checkout" in message(lambda: store_reader.open(tmp_path))


@pytest.mark.parametrize("name", ["zarr.json", "units.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"a": 1}'])
def test_a_damaged_file_of_the_group(damaged, name, content):
    path = damaged.path / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    if (name, content) == ("units.json", b"[]"):
        refused(damaged, r"units\.json: units must be the 6 of the extent\. Got 0\.")
    else:
        refused(damaged, "is not a whole cache|cannot be read|must hold a list of units|format must be 1")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"zarr_format": 3, "node_type": "group"}'])
def test_damaged_metadata_of_an_array(damaged, content):
    path = damaged.path / "logp" / "zarr.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    refused(damaged, r"logp.*(is missing|cannot be read)")


@pytest.mark.parametrize("name", ["class_id", "logp", "lse", "key", "canary"])
def test_a_missing_object(damaged, name):
    path = damaged.object(name, 1)
    path.unlink()
    refused(damaged, rf"{re.escape(str(path))}: is missing\. Fetch it again")


def test_an_object_that_goes_missing_after_opening(damaged):
    cache = damaged.open()
    damaged.object("logp", 1).unlink()
    assert "is missing (No such file" in message(lambda: cache.block(1, 0))
    assert cache.block(0, 0).logp_BK.shape == (6, 3)


def use(cache: store_reader.Cache, name: str, tar: int, aug_seed: int = 0) -> object:
    if name == "key":
        return cache.keys(tar)
    return cache.canary(tar) if name == "canary" else cache.block(tar, aug_seed)


@pytest.mark.parametrize("name", ["class_id", "logp", "lse", "key", "canary"])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_a_flipped_byte(damaged, name, place):
    path = damaged.object(name, 1)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x10
    path.write_bytes(bytes(data))
    cache = damaged.open()
    text = message(lambda: use(cache, name, 1))
    assert text.startswith(f"{path}: sha256 must be as recorded, ")
    use(cache, name, 0)


def test_a_flipped_byte_is_found_even_where_the_record_agrees(damaged):
    path = damaged.object("logp", 1)
    data = bytearray(path.read_bytes())
    data[10] ^= 0x10
    path.write_bytes(bytes(data))
    record_sha256(damaged, "logp", 1)
    assert "cannot be decoded" in message(lambda: damaged.open().block(1, 0))


def record_sha256(store, name: str, tar: int) -> None:
    """Make the unit's record agree with what lies there now."""
    from teachonce.core import hashing

    digest = hashing.sha256_file(store.object(name, tar))

    def change(units):
        for unit in units:
            if (unit["tar"], unit["group"]) == (tar, 0):
                unit["objects"][name] = digest
        return units

    store.edit("units.json", change)


def test_a_truncated_object(damaged):
    path = damaged.object("logp", 0)
    path.write_bytes(path.read_bytes()[:-7])
    assert f"{path}: sha256 must be as recorded" in message(lambda: damaged.open().block(0, 1))


@pytest.mark.parametrize("name", ["class_id", "logp", "lse", "key", "canary"])
def test_objects_swapped_between_tars(damaged, name):
    first, second, spare = damaged.object(name, 0), damaged.object(name, 1), damaged.path.parent / "spare"
    shutil.move(first, spare)
    shutil.move(second, first)
    shutil.move(spare, second)
    cache = damaged.open()
    for tar in (0, 1):
        assert "sha256 must be as recorded" in message(lambda tar=tar: use(cache, name, tar))
    use(cache, name, 2)


def test_objects_swapped_between_groups(damaged):
    first, second, spare = damaged.object("lse", 0, 0), damaged.object("lse", 0, 1), damaged.path.parent / "spare"
    shutil.move(first, spare)
    shutil.move(second, first)
    shutil.move(spare, second)
    assert "sha256 must be as recorded" in message(lambda: damaged.open().block(0, 3))


def test_swapped_keys_are_found_by_their_crc(damaged):
    first, second = damaged.object("key", 0), damaged.object("key", 1)
    first.write_bytes(second.read_bytes())
    record_sha256(damaged, "key", 0)
    text = message(lambda: damaged.open().keys(0))
    assert text.startswith(f"{first}: keys differ from the recorded crc32. Fetch it again")
    assert "keys differ" in message(lambda: damaged.open().rows(["pic-0000"], 0))


def test_rows_that_were_never_written(damaged, write_shards_at):
    """The writer died, the record lied: fill values are no rows."""

    def longer(data):
        data["attributes"]["teachonce"]["extent"]["tars"][2]["nsamples"] = 6
        return data

    damaged.edit("zarr.json", longer)
    assert "holds rows that were never written" in message(lambda: damaged.open().block(2, 0))


@pytest.mark.parametrize(
    "change", [lambda units: units[1:], lambda units: [*units, units[0]], lambda units: units[:1] * 6]
)
def test_a_unit_record_missing_or_twice(damaged, change):
    damaged.edit("units.json", change)
    refused(damaged, r"units\.json: units must be the 6 of the extent\. Got [567]\.")


def test_a_unit_record_without_an_object(damaged):
    def change(units):
        del units[0]["objects"]["logp"]
        return units

    damaged.edit("units.json", change)
    assert "sha256 must be as recorded, None" in message(lambda: damaged.open().block(0, 0))


def test_a_format_that_its_rows_do_not_need(damaged):
    def change(data):
        data["attributes"]["teachonce"]["format"] = 2
        return data

    damaged.edit("zarr.json", change)
    refused(damaged, "format must be 1, that of such rows")


@pytest.mark.parametrize(
    ("fidelity", "line"),
    [
        ({"k=3,tau=x": {}}, r"fidelity\.k=3,tau=x.* is refused: string should match pattern"),
        ({"k=3,tau=1": {"tv_mean": 0.1}}, "fidelity must tell kl_mean, kl_p99, tv_mean, tv_p99 of each k and tau"),
    ],
)
def test_distances_that_cannot_be_read(damaged, fidelity, line):
    def change(data):
        data["attributes"]["teachonce"]["fidelity"] = fidelity
        return data

    damaged.edit("zarr.json", change)
    refused(damaged, line)


@pytest.mark.parametrize("version", [0, 4, "1", None])
def test_another_format(damaged, version):
    def change(data):
        data["attributes"]["teachonce"]["format"] = version
        return data

    damaged.edit("zarr.json", change)
    refused(
        damaged, rf"format must be 1 or 2 or 3\. Got {version}\. Install the release that reads it, or make it again"
    )


def edited(damaged, path: str, value: object) -> None:
    def change(data):
        place = data["attributes"]["teachonce"]
        *parents, last = path.split(".")
        for part in parents:
            place = place[int(part)] if part.isdigit() else place[part]
        place[last] = value
        return data

    damaged.edit("zarr.json", change)


@pytest.mark.parametrize(
    ("path", "value", "pattern"),
    [
        ("newer", 1, "newer is not a known key"),
        ("recipe.policy.newer", 1, "recipe.policy.newer is not a known key"),
        ("recipe.teacher.num_classes", 2**40, r"num_classes is refused: .*less than or equal to 1048576\. Got"),
        ("recipe.teacher.num_classes", 2**19, "zarr.json|class_id"),
        ("recipe.teacher.size", 10**9, "size is refused"),
        ("recipe.teacher.size", 4096, "canary/zarr.json: shape must be"),
        ("recipe.k", 13, "k must be below the 12 classes, or all"),
        ("recipe.k", 4, "class_id/zarr.json: shape must be"),
        ("recipe.k", 0, "recipe.k"),
        ("recipe.k", "all", "tail must be none"),
        ("extent.aug_seeds", 2**60, "aug_seeds is refused"),
        ("extent.aug_seeds", 2**20, "class_id/zarr.json: shape must be"),
        ("extent.aug_seeds", 5, "aug_seeds must be a multiple of seeds_per_unit, 2"),
        ("extent.seeds_per_unit", 4, r"class_id/zarr.json: chunk_grid must be"),
        ("extent.rows_per_tar", 2**60, "rows_per_tar is refused"),
        ("extent.rows_per_tar", 2**20, "key/zarr.json: shape must be"),
        ("extent.rows_per_tar", 5, "rows_per_tar must be at least the 6 rows"),
        ("extent.tars.0.sha256", "../../etc", "sha256 is refused"),
        ("extent.tars.0.nsamples", 0, "nsamples is refused"),
        ("extent.tars", [], "extent.tars is refused"),
        ("recipe", None, "recipe is refused"),
    ],
)
def test_absurd_attributes_are_refused_and_allocate_nothing(damaged, path, value, pattern):
    edited(damaged, path, value)
    tracemalloc.start()
    try:
        refused(damaged, pattern)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_huge_store_that_agrees_with_itself_is_refused_at_its_count_of_units(damaged):
    edited(damaged, "extent.aug_seeds", 2**20)
    for name in ("class_id", "logp", "lse"):

        def change(data):
            data["shape"][1] = 2**20
            return data

        damaged.edit(f"{name}/zarr.json", change)
    refused(damaged, r"units must be the 1572864 of the extent\. Got 6")


def big_endian(data):
    sharding = data["codecs"][0]["configuration"]
    sharding["codecs"][0]["configuration"]["endian"] = "big"
    return data


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data | {"shape": [3, 4, 6, 2]}, "shape"),
        (lambda data: data | {"shape": [4, 4, 6, 3]}, "shape"),
        (lambda data: data | {"data_type": "int16", "fill_value": 0}, "data_type"),
        (lambda data: data | {"fill_value": 0.0}, "fill_value"),
        (
            lambda data: data | {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
            "chunk_key_encoding",
        ),
        (big_endian, "codecs"),
    ],
)
def test_edited_metadata_of_an_array(damaged, change, what):
    damaged.edit("logp/zarr.json", change)
    refused(damaged, rf"logp/zarr\.json: {what} must be")


def test_a_store_reads_the_same_from_a_copy(damaged, store_of):
    for aug_seed in range(4):
        assert np.array_equal(damaged.open().block(1, aug_seed).logp_BK, store_of(3).open().block(1, aug_seed).logp_BK)
    assert json.loads((damaged.path / "units.json").read_text())


def other_rows(store, name: str, tar: int) -> bytes:
    """An object of the same form that says something else."""
    spare = store.path.parent / "spare.zarr"
    shutil.copytree(store.path, spare)
    array = zarr.open_array(str(spare / name), mode="r+")
    array[tar] = np.roll(np.asarray(array[tar]), 1, axis=1)
    return (spare / store.object(name, tar).relative_to(store.path)).read_bytes()


@pytest.mark.parametrize("way", ["replaced", "written into"])
def test_an_object_that_changes_while_the_store_is_open(damaged, way):
    other = other_rows(damaged, "logp", 0)
    path = damaged.object("logp", 0)
    old = time.time() - 60
    os.utime(path, (old, old))
    time.sleep(0.2)  # else it would be looked at anew for its age alone
    cache = damaged.open()
    expected = cache.block(0, 0).logp_BK
    assert np.array_equal(cache.block(0, 0).logp_BK, expected)
    if way == "replaced":
        files.write_bytes(path, other)
    else:
        path.write_bytes(other)
    os.utime(path, (old, old))
    assert f"{path}: sha256 must be as recorded" in message(lambda: cache.block(0, 0))


def test_a_sound_copy_in_its_place_is_read_on(damaged):
    cache, path = damaged.open(), damaged.object("logp", 0)
    expected = cache.block(0, 0).logp_BK
    files.write_bytes(path, path.read_bytes())
    assert np.array_equal(cache.block(0, 0).logp_BK, expected)


def test_a_class_that_there_is_not(damaged):
    zarr.open_array(str(damaged.path / "class_id"), mode="r+")[0, 0, 3, 0] = 12
    record_sha256(damaged, "class_id", 0)
    where = re.escape(str(damaged.object("class_id", 0)))
    cache = damaged.open()
    assert re.match(
        rf"{where}: class_id must be below 12, the classes\. Got 12\. Fetch", message(lambda: cache.block(0, 0))
    )
    assert message(lambda: cache.blocks(0, 0))
    assert cache.block(0, 2).class_id_BK.max() < 12


def test_tars_whose_digests_were_swapped(damaged):
    def swap(data):
        first, second = data["attributes"]["teachonce"]["extent"]["tars"][:2]
        first["sha256"], second["sha256"] = second["sha256"], first["sha256"]
        return data

    tars = damaged.extent.tars
    damaged.edit("zarr.json", swap)
    refused(damaged, f"tar_sha256 of tar 0, group 0 must be {tars[1].sha256}, as in the extent. Got {tars[0].sha256}")


def test_two_stores_that_differ_in_one_row_have_two_fingerprints(damaged, store_of):
    good = store_of(3).open()
    assert fingerprint.cache_digest(damaged.open()) == fingerprint.cache_digest(good)
    zarr.open_array(str(damaged.path / "logp"), mode="r+")[1, 0, 3, 0] -= 0.5
    record_sha256(damaged, "logp", 1)
    bad = damaged.open()
    assert fingerprint.cache_digest(bad) != fingerprint.cache_digest(good)
    tars = [tar.sha256 for tar in good.extent.tars]
    assert fingerprint.rows_digest(bad, tars, 4) != fingerprint.rows_digest(good, tars, 4)
    # Of what is not read, nothing shows: a run goes on where the store has grown.
    assert fingerprint.rows_digest(bad, tars[:1], 4) == fingerprint.rows_digest(good, tars[:1], 4)
    assert fingerprint.rows_digest(good, tars, 2) != fingerprint.rows_digest(good, tars, 4)


@pytest.mark.parametrize(
    ("name", "row", "what"),
    [
        ("logp", [5.0, -1.0, -2.0], "log-probabilities of a row must be at most 0 and fall"),
        ("logp", [60_000.0, 60_000.0, 60_000.0], "log-probabilities of a row must be at most 0 and fall"),
        ("logp", [2.0**-24, -9.0, -9.0], "log-probabilities of a row must be at most 0 and fall"),
        ("logp", [-3.0, -2.0, -4.0], "log-probabilities of a row must be at most 0 and fall"),
        ("logp", [0.0, -0.0, -65_504.0], r"the kept mass of a row must be at most 1\.000539\. Got 2\.000000"),
        ("logp", [-0.5, -0.9, -1.5], r"the kept mass of a row must be at most 1\.000539\. Got 1\.236270"),
        ("class_id", [4, 4, 4], "class ids of a row must differ. Got 1 rows with one twice"),
        ("class_id", [4, 7, 4], "class ids of a row must differ. Got 1 rows with one twice"),
    ],
)
def test_rows_that_no_teacher_could_give(damaged, name, row, what):
    zarr.open_array(str(damaged.path / name), mode="r+")[0, 1, 3] = row
    record_sha256(damaged, name, 0)
    where = re.escape(str(damaged.object(name, 0)))
    cache = damaged.open()
    for read in (lambda: cache.block(0, 1), lambda: cache.blocks(0, 0), lambda: cache.block(0, 1, lse=False)):
        assert re.match(rf"{where}: {what}\. Fetch", message(read))
    assert len(cache.block(0, 0).logp_BK), "the unit's other block is sound"


@pytest.mark.parametrize(("k", "name", "value"), [("all", "logits", 3e38), ("all", "logits", -3e38), (3, "lse", 3e38)])
def test_numbers_whose_differences_are_no_numbers(store_of, tmp_path, k, name, value):
    source = store_of(k)
    store = replace(source, path=tmp_path / "train.zarr")
    shutil.copytree(source.path, store.path)
    for path in store.path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    array = zarr.open_array(str(store.path / name), mode="r+")
    array[0, 1, 3] = value
    record_sha256(store, name, 0)
    cache = store.open()
    assert f"{store.object(name, 0)}: numbers must be at most 2^100 in magnitude. Got 3e+38. Fetch" in message(
        lambda: cache.block(0, 1)
    )


@pytest.mark.parametrize("row", [[0.0, -65_504.0, -65_504.0], [-0.0, -9.0, -9.0], [-1.0986, -1.0986, -1.0986]])
def test_rows_at_the_bounds_of_what_a_teacher_gives(damaged, row):
    zarr.open_array(str(damaged.path / "logp"), mode="r+")[0, 1, 3] = row
    record_sha256(damaged, "logp", 0)
    assert damaged.open().block(0, 1).logp_BK[3].tolist() == np.array(row, np.float16).tolist()
