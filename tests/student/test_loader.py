"""Batches: the same whatever the workers and the place to start, every sample once, and nothing wrong in silence."""

import json
import logging
import tracemalloc
from dataclasses import fields, is_dataclass, replace

import feed
import numpy as np
import pytest
import torch

from teachonce.core import errors
from teachonce.shards import sample_reader
from teachonce.store import store_reader
from teachonce.student import batching


def same(one: batching.Batch, two: batching.Batch) -> bool:
    """Equal to the bit, in everything."""
    return _flat(one) == _flat(two)


def _flat(value: object) -> object:
    """Plain data: a batch's fields by name, a tensor as its form and bytes."""
    if is_dataclass(value):
        return {field.name: _flat(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: _flat(part) for name, part in value.items()}
    return (value.dtype, value.shape, value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value


def all_same(one: list[batching.Batch], two: list[batching.Batch]) -> bool:
    return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # on fewer cores, for once
def test_workers_do_not_change_a_batch(world):
    # One sample a lane and step: the last step has one sample, so that some workers have none.
    plan = world.plan(batch_size=4)
    alone = list(feed.batches(plan, workers=0))
    assert alone[13].weight.tolist() == [0, 0, 0, 1]
    for workers in (1, 2, 4):
        assert all_same(list(feed.batches(plan, workers=workers)), alone)


@pytest.mark.slow
def test_workers_start_anywhere_too(world):
    plan = world.plan("top3")
    assert all_same(list(feed.batches(plan, workers=2, number=1, step=3)), list(feed.batches(plan, workers=0))[10:])


@pytest.mark.parametrize("cache", ["whole", "top3"])
def test_any_start_is_the_tail_of_the_whole(world, cache):
    plan = world.plan(cache)
    whole = list(feed.batches(plan, workers=0))
    assert len(whole) == 14
    for epoch in (0, 1):
        for step in range(7):
            tail = list(feed.batches(plan, workers=0, number=epoch, step=step))
            assert all_same(tail, whole[7 * epoch + step :])
    assert not list(feed.batches(plan, workers=0, number=2))


def test_a_start_reads_only_what_it_needs(broken):
    """Lanes of one tar each: a resumed epoch does not touch a tar whose rows were all given out."""
    plan = broken.plan(lanes=1, batch_size=1, buffer=1, passes=1)
    first = next(feed.batches(plan, workers=0))
    tar = next(number for number in range(3) if _position(broken, number, first) == 0)
    broken.tar(tar).unlink()
    assert len(list(feed.batches(plan, workers=0, step=20 if tar < 2 else 13))) == (33 if tar < 2 else 40)
    with pytest.raises(errors.DataError, match="cannot be read"):
        next(feed.batches(plan, workers=0))


def _position(world, tar: int, batch: batching.Batch) -> int | None:
    cache = store_reader.open(world.cache())
    rows = cache.block(tar, 0).logits_BC
    found = np.flatnonzero((rows == batch.rows["logits"].numpy()).all(axis=1))
    return int(found[0]) if found.size else None


@pytest.mark.parametrize("cache", ["whole", "top3"])
def test_every_sample_once_with_its_own_view_and_row(world, cache):
    samples, store = world.samples(), store_reader.open(world.cache(cache))
    batches = list(feed.batches(world.plan(cache, passes=6), workers=0))
    orders = []
    for epoch in range(6):
        seed = epoch % 4
        key_of = {world.view(sample, seed).tobytes(): key for key, sample in samples.items()}
        seen = []
        for batch in batches[7 * epoch : 7 * epoch + 7]:
            real = batch.weight.numpy() == 1
            assert set(batch.weight.tolist()) <= {0.0, 1.0}
            keys = [key_of[pixels.tobytes()] for pixels in batch.pixels.numpy()[real]]
            assert [samples[key].label for key in keys] == batch.label.numpy()[real].tolist()
            expected = store.rows(keys, seed).arrays()
            assert set(batch.rows) == set(expected) - {"lse"}
            for name, rows in batch.rows.items():
                assert np.array_equal(rows.numpy()[real], expected[name])
            assert not batch.pixels.numpy()[~real].any()
            seen += keys
        assert sorted(seen) == sorted(samples)
        orders.append(tuple(seen))
    assert len(set(orders)) == 6


def test_fewer_seeds_than_the_cache_holds_come_around_sooner(world):
    one, two = (list(feed.batches(world.plan(passes=3, aug_seeds=seeds), workers=0)) for seeds in (2, 4))
    assert all_same(one[:14], two[:14])
    store, samples = store_reader.open(world.cache()), world.samples()
    rows = {row.tobytes() for row in store.rows(list(samples), 0).arrays()["logits"]}
    for batch in one[14:]:
        assert {row.tobytes() for row in batch.rows["logits"].numpy()[batch.weight.numpy() == 1]} <= rows


def test_seed_changes_the_order_alone(world):
    one, two = (list(feed.batches(replace(world.plan(passes=1), seed=seed), workers=0)) for seed in (1, 2))
    views = [sorted(p.tobytes() for b in batches for p in b.pixels.numpy()) for batches in (one, two)]
    assert views[0] == views[1]
    assert not same(one[0], two[0])


def test_the_buffer_holds_encoded_samples(world):
    """Fifty views of 512 pixels would take 40 MB; their images take a few kilobytes."""
    plan = world.plan(lanes=1, batch_size=1, buffer=1000)
    next(feed.batches(plan, workers=0))
    large = replace(plan, size=512)
    tracemalloc.start()
    try:
        batch = next(feed.batches(large, workers=0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * batch.pixels.numel()


def truncate(world):
    world.tar(1).write_bytes(world.tar(1).read_bytes()[:-700])


def swap(world):
    one, two = world.tar(0).read_bytes(), world.tar(1).read_bytes()
    assert len(one) == len(two)
    world.tar(0).write_bytes(two)
    world.tar(1).write_bytes(one)


def flip(path, offset: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


def flip_image(world):
    flip(world.tar(1), world.tar(1).read_bytes().rindex(b"IDAT") + 20)


def flip_label(world):
    # A header and a block of data for each member, and 0 ^ 1 is a digit too.
    data = world.tar(1).read_bytes()
    flip(world.tar(1), data.index(b".cls") // 512 * 512 + 512)


def flip_padding(world):
    flip(world.tar(2), -3)


def flip_key(world):
    data = world.tar(1).read_bytes()
    for offset in [at for at in range(0, len(data), 512) if data[at : at + 7] == b"digits/"][20:22]:
        header = bytearray(data[offset : offset + 512])
        header[9] ^= 2
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        data = data[:offset] + bytes(header) + data[offset + 512 :]
    world.tar(1).write_bytes(data)


def missing_tar(world):
    world.tar(2).unlink()


def block(world, tar: int = 1):
    return world.cache() / f"logits/c/{tar}/0/0/0"


def flip_block(world):
    flip(block(world), 40)


def swap_blocks(world):
    one, two = block(world, 0).read_bytes(), block(world, 1).read_bytes()
    block(world, 0).write_bytes(two)
    block(world, 1).write_bytes(one)


def missing_block(world):
    block(world).unlink()


def other_index(world):
    path = world.shards / "index.json"
    index = json.loads(path.read_text())
    index["shardlist"][1]["keys_crc32"] ^= 1
    path.write_text(json.dumps(index))


def other_tar(world):
    path = world.shards / "index.json"
    index = json.loads(path.read_text())
    index["shardlist"][1]["sha256"] = "0" * 64
    path.write_text(json.dumps(index))


def flip_keys(world):
    flip(world.cache() / "key/c/1/0", 30)


def drift(world):
    path = world.cache() / "units.json"
    units = json.loads(path.read_text())
    for unit in units:
        if unit["tar"] == 2:
            unit["canary"]["sha256"] = "0" * 64
    path.write_text(json.dumps(units))


RESTORE_TAR = r"Restore it: dvc checkout, or dvc pull; where DVC does not hold it, from where it came$"
RESTORE_CACHE = r"Fetch it again: dvc checkout, or dvc pull; or make it again: dvc repro cache$"
DAMAGES = {
    truncate: (errors.DataError, r"train-000001\.tar: bytes must be as indexed, \d+\. Got \d+\. " + RESTORE_TAR),
    swap: (
        errors.DataError,
        r"tar: the crc32 of its keys must be as indexed, \d+\. Got \d+\. " + RESTORE_TAR,
    ),
    flip_image: (errors.DataError, r"train-000001\.tar"),
    flip_label: (errors.DataError, r"train-000001\.tar: sha256 must be as indexed, .* " + RESTORE_TAR),
    flip_padding: (
        errors.DataError,
        r"train-000002\.tar: is not a whole tar \(data behind its end mark at byte [\d,]+\)\. " + RESTORE_TAR,
    ),
    flip_key: (
        errors.DataError,
        r"train-000001\.tar: the crc32 of its keys must be as indexed, \d+\. Got \d+\. " + RESTORE_TAR,
    ),
    missing_tar: (
        errors.DataError,
        r"train-000002\.tar: cannot be read \(No such file or directory\)\. " + RESTORE_TAR.removesuffix("$"),
    ),
    flip_block: (errors.CacheError, r"logits/c/1/0/0/0: sha256 must be as recorded, .* " + RESTORE_CACHE),
    swap_blocks: (errors.CacheError, r"logits/c/[01]/0/0/0: sha256 must be as recorded, .* " + RESTORE_CACHE),
    missing_block: (errors.CacheError, r"logits/c/1/0/0/0: is missing\. " + RESTORE_CACHE),
    flip_keys: (errors.CacheError, r"key/c/1/0: sha256 must be as recorded, .* " + RESTORE_CACHE),
    other_index: (errors.CacheError, r"keys of train-000001\.tar must be those of the index, .* dvc repro cache$"),
    other_tar: (errors.IdentityError, r"has no rows of 0{64}; it holds 3 tars\. Grow it: .*dvc repro cache$"),
    drift: (errors.ViewDriftError, r"views no longer replay: same library versions; .* accept: \[view_drift\]$"),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_refused_within_the_epoch(broken, damage):
    kind, message = DAMAGES[damage]
    damage(broken)
    given = []
    with pytest.raises(kind, match=message) as caught:
        given.extend(feed.batches(broken.plan(passes=1), workers=0))
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    # The epoch's last batch, behind which a checkpoint is written, is never given out.
    assert len(given) < 7


@pytest.mark.slow
def test_a_worker_refuses_in_the_same_words(broken):
    kind, message = DAMAGES[drift]
    drift(broken)
    with pytest.raises(kind, match=message) as caught:
        list(feed.batches(broken.plan(passes=1), workers=2))
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_the_digest_of_a_tar_cut_by_lanes_is_compared(broken):
    """Rows of one tar go to several lanes; the lane with its last row answers for its digest."""
    flip_label(broken)
    for lanes in (1, 2, 8):
        with pytest.raises(errors.DataError, match="sha256 must be as indexed"):
            list(feed.batches(broken.plan(passes=1, lanes=lanes), workers=0))


def test_accepted_drift_goes_on_with_a_warning(broken, world, caplog):
    expected = list(feed.batches(world.plan(), workers=0))
    drift(broken)
    with caplog.at_level(logging.WARNING):
        found = list(feed.batches(broken.plan(accept=("view_drift",)), workers=0))
    assert all_same(found, expected)
    assert caplog.records
    assert all("views no longer replay" in record.getMessage() for record in caplog.records)


def test_a_label_beyond_the_classes_is_refused(world, tmp_path, samples_of, monkeypatch):
    """A tar may be sound and yet hold what its index does not name; the loss would fail in torch's words."""
    made = type(world)(tmp_path / "labels")
    samples = [replace(sample, label=12) if row == 5 else sample for row, sample in enumerate(samples_of(8))]
    made.add_shards(samples)
    made.root.joinpath("teacher").symlink_to(world.teacher)
    with monkeypatch.context() as before:
        # A cache of a release that did not look.
        before.setattr(sample_reader, "_require_labels", lambda *_: None)
        made.add_cache("whole", "all")
    sample_reader._verified_table.cache_clear()
    with pytest.raises(errors.DataError, match=r"label of 'digits/0005' must be below 10, the classes\. Got 12"):
        list(feed.batches(made.plan(), workers=0))


def test_no_cache_and_no_shards_are_refused(broken):
    with pytest.raises(errors.CacheError, match=r"none\.zarr: is not a whole cache"):
        next(feed.batches(broken.plan("none"), workers=0))
    (broken.shards / "index.json").unlink()
    with pytest.raises(errors.DataError, match="dvc repro prepare, or dvc pull"):
        next(feed.batches(broken.plan(), workers=0))
