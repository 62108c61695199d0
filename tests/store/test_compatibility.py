import io
import json
import re
import shutil
import typing

import numpy as np
import pytest
from PIL import Image

from teachonce.core import errors, files, run_record, storage
from teachonce.shards import decode, index, sample_reader
from teachonce.store import acceptance, compatibility, store_reader
from teachonce.views import view_policy


@pytest.fixture
def ask(store_of):
    return compatibility.Requirements(policy=store_of(3).recipe.policy, aug_seeds=4)


def refused(store, shards, ask, pattern):
    with pytest.raises(errors.IdentityError) as caught:
        compatibility.require_compatible(store.open(), shards, "train", ask)
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def altered(shards: index.Shards, **changes) -> index.Shards:
    return index.Shards(shards.index.model_copy(update=changes), storage.Folder(shards.base))


def test_the_shards_it_was_made_of_are_accepted(store_of, shards, ask):
    compatibility.require_compatible(store_of(3).open(), shards, "train", ask)


def test_less_than_it_holds_may_be_asked(store_of, shards, ask):
    some = altered(shards, shardlist=shards.index.shardlist[1:])
    compatibility.require_compatible(store_of(3).open(), some, "train", compatibility.Requirements(ask.policy, 1))


def test_tars_in_another_order_or_under_other_names_are_the_same_tars(store_of, shards, ask):
    swapped = [
        entry.model_copy(update={"url": f"moved-{place}.tar"}) for place, entry in enumerate(shards.index.shardlist)
    ]
    compatibility.require_compatible(
        store_of(3).open(), altered(shards, shardlist=tuple(reversed(swapped))), "train", ask
    )


def test_swapped_names_give_each_tar_its_own_rows(store_of, shards):
    """Rows follow the sha256: after two tars swapped names, each still finds its rows."""
    cache = store_of(3).open()
    first, second, _ = shards.index.shardlist
    assert list(cache.keys(second.sha256)) == store_of(3).keys(1)
    assert list(cache.keys(first.sha256)) == store_of(3).keys(0)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"flip": 0.0}, r"policy\.flip must be as asked, 0\.0\. Got 0\.5\. Make it again: dvc repro cache"),
        ({"erase": None}, r"policy\.erase must be as asked, None\. Got probability=0\.5"),
        (
            {"crop": view_policy.RandomResizedCrop(scale=(0.1, 1.0))},
            r"policy\.crop must be as asked, scale=\(0\.1, 1\.0\)",
        ),
        ({"interpolation": "bilinear"}, r"policy\.interpolation must be as asked, bilinear\. Got bicubic"),
    ],
)
def test_another_policy(store_of, shards, ask, change, pattern):
    refused(store_of(3), shards, compatibility.Requirements(ask.policy.model_copy(update=change), 4), pattern)


@pytest.fixture
def older(store_of, tmp_path):
    """A store of Pillow's renderer: its policy names none."""
    folder = tmp_path / "older.zarr"
    shutil.copytree(store_of(3).path, folder)
    written = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    assert written["attributes"]["teachonce"]["recipe"]["policy"].pop("renderer") == view_policy.RENDERER
    (folder / "zarr.json").unlink()
    files.write_json(folder / "zarr.json", written)
    return store_reader.open(folder)


def test_another_renderer_is_refused_whatever_is_accepted(older, shards, ask):
    told = (
        r"older\.zarr: policy\.renderer must be 2, the renderer of this release \(0 is Pillow's\)\. Got 0\. "
        r"Make it again: dvc repro cache$"
    )
    for policy in (ask.policy, older.recipe.policy):
        with pytest.raises(errors.IdentityError, match=told) as caught:
            compatibility.require_compatible(
                older, shards, "train", compatibility.Requirements(policy, 4), typing.get_args(acceptance.Acceptable)
            )
        assert caught.value.accept is None
    with pytest.raises(errors.IdentityError, match=r"policy\.renderer must be 2, the renderer of this release\. Got 0"):
        compatibility.replay_first_canaries(older, shards, "train", 1)


def test_a_first_renderer_that_is_written_and_not_left_out_is_refused(older):
    """It would have another digest for the same views."""
    written = json.loads((older.path / "zarr.json").read_text(encoding="utf-8"))
    written["attributes"]["teachonce"]["recipe"]["policy"]["renderer"] = 0
    (older.path / "zarr.json").unlink()
    files.write_json(older.path / "zarr.json", written)
    with pytest.raises(errors.CacheError, match=r"renderer must be at least 1, or left out"):
        store_reader.open(older.path)


def test_rows_of_another_renderer_are_read(older, store_of):
    ours = store_of(3).open()
    assert older.recipe.policy.renderer == 0
    for name, array in ours.block(1, 2).arrays().items():
        assert np.array_equal(older.block(1, 2).arrays()[name], array)


def test_other_classes(store_of, shards, ask):
    names = shards.index.classes
    refused(
        store_of(3),
        altered(shards, classes=names[:-1]),
        ask,
        r"teacher\.num_classes must be 11, the classes of the shards\. Got 12",
    )
    refused(
        store_of(3),
        altered(shards, classes=(*names[:-2], names[-1], names[-2])),
        ask,
        r"teacher\.classes_sha256 must be that of the shards' class names",
    )


def test_too_few_seeds(store_of, shards, ask):
    refused(
        store_of(3),
        shards,
        compatibility.Requirements(ask.policy, 5),
        r"aug_seeds must be at least the 5 asked\. Got 4\. Grow it: dvc repro cache; or ask for fewer",
    )


def test_a_tar_it_does_not_hold(store_of, write_shards_at, tmp_path, ask):
    more = write_shards_at(tmp_path / "shards", rows=22)
    refused(store_of(3), more, ask, r"has no rows of [0-9a-f]{64}; it holds 3 tars\. Grow it")


def test_a_tar_whose_keys_are_told_otherwise(store_of, shards, ask):
    first, *others = shards.index.shardlist
    entries = (first.model_copy(update={"keys_crc32": 7}), *others)
    refused(
        store_of(3),
        altered(shards, shardlist=entries),
        ask,
        r"keys of train-000000\.tar must be those of the shard, crc32 7\. Got \d+",
    )


def test_a_tar_of_another_count_of_rows_is_refused_whatever_is_accepted(store_of, shards, ask):
    first, *others = shards.index.shardlist
    shorter = altered(shards, shardlist=(first.model_copy(update={"nsamples": 5, "keys_crc32": 7}), *others))
    with pytest.raises(errors.IdentityError, match=r"rows of train-000000\.tar must be those of the shard, 5\. Got 6"):
        compatibility.require_compatible(store_of(3).open(), shorter, "train", ask, ("keys", "tars"))


def picture(shards, tar: int, row: int):
    entry = shards.index.of_split("train")[tar]
    sample = list(sample_reader.verified_samples(entry, shards.path(entry)))[row]
    return decode.rgb(sample.image, sample.key), sample.key


class OneSample:
    """A tar of which one sample is asked."""

    def __init__(self, row: int, key: str, image: bytes) -> None:
        self._sample = sample_reader.Sample(row, key, image, 0)

    def sample(self, row: int) -> sample_reader.Sample:
        assert row == self._sample.row
        return self._sample


def replay(cache, tar: int, group: int, image, key: str) -> compatibility.CanaryDrift | None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    [drift] = compatibility.replay_canaries(
        cache, OneSample(cache.unit(tar, group).canary.row, key, buffer.getvalue()), tar, [group]
    )
    return drift


def test_canaries_replay(store_of, shards):
    cache = store_of(3).open()
    for unit in cache.units():
        assert replay(cache, unit.tar, unit.group, *picture(shards, unit.tar, unit.canary.row)) is None
    assert compatibility.replay_first_canaries(cache, shards, "train", 2) == ([], 4)
    assert compatibility.replay_first_canaries(cache, shards, "train", 9) == ([], 6)


def test_an_image_one_level_brighter_is_drift(store_of, shards):
    cache = store_of(3).open()
    image, key = picture(shards, 1, cache.unit(1, 0).canary.row)
    brighter = Image.fromarray(np.clip(np.asarray(image).astype(int) + 1, 0, 255).astype(np.uint8))
    drift = replay(cache, 1, 0, brighter, key)
    assert 1 <= drift.levels <= 2
    assert drift.versions == run_record.library_versions()
    # Of later groups only the digest is kept.
    image, key = picture(shards, 1, cache.unit(1, 1).canary.row)
    brighter = Image.fromarray(np.clip(np.asarray(image).astype(int) + 1, 0, 255).astype(np.uint8))
    assert replay(cache, 1, 1, brighter, key).levels is None


def test_another_key_is_another_view(store_of, shards):
    cache = store_of(3).open()
    image, _ = picture(shards, 0, cache.unit(0, 0).canary.row)
    assert replay(cache, 0, 0, image, "somebody else") is not None


def drifted(store, versions: dict[str, str]):
    """Give every unit a canary that today's code does not render, made by other versions."""

    def change(units):
        for unit in units:
            unit["canary"]["sha256"] = "f" * 64
            unit["versions"] |= versions
        return units

    store.edit("units.json", change)
    return store.open()


def test_the_message_of_drift_names_versions_and_counts(damaged, shards):
    cache = drifted(damaged, {"pillow": "11.0.0", "numpy": "1.0"})
    drifts, checked = compatibility.replay_first_canaries(cache, shards, "train", 2)
    assert (len(drifts), checked) == (4, 4)
    installed = run_record.library_versions()
    assert str(compatibility.drift_error(cache, drifts, checked)) == (
        f"{damaged.path}: views no longer replay: numpy {installed['numpy']} here, 1.0 when cached; "
        f"pillow {installed['pillow']} here, 11.0.0 when cached; 4 of 4 canaries differ by up to 0 of 255 levels. "
        "Install those versions, make the cache again (dvc repro cache), or set accept: [view_drift]"
    )


def test_the_message_of_drift_without_a_change_of_versions(damaged, shards):
    cache = drifted(damaged, {})
    drifts, checked = compatibility.replay_first_canaries(cache, shards, "train", 1)
    assert "replay: same library versions; the code of views or the processor's libraries differ; 2 of 2 canaries" in (
        str(compatibility.drift_error(cache, drifts, checked))
    )


def test_shards_whose_images_were_encoded_anew_are_other_shards(store_of, write_shards_at, tmp_path, ask):
    other = write_shards_at(tmp_path / "shards")
    entry = other.index.shardlist[0]
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    path = other.path(entry)
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    files.write_bytes(path, bytes(data))
    with pytest.raises(errors.DataError, match="must be as indexed"):
        compatibility.replay_first_canaries(store_of(3).open(), other, "train", 1)
