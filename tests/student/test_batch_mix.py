"""Mixed and repeated views: rows are the teacher's answers to the mixed image, whatever the batch; pairs never part."""

import feed
import numpy as np
import pytest
import torch

from teachonce.core import config, errors
from teachonce.shards import decode, index, sample_reader
from teachonce.store import replay, store_reader
from teachonce.student import batch_mix, batching, schedule, student_run, student_spec, train_cached
from teachonce.teacher import predictor as predict
from teachonce.teacher import teacher_network
from teachonce.views import mixing, views_config
from teachonce.views.view_policy import MixupCutmix

ROWS, ROWS_PER_TAR = 22, 7
"""Tars of 7, 7, 7 and 1: odd ones, and one of a single row."""
MIX = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}


@pytest.fixture(scope="module")
def mixed(world, samples_of, tmp_path_factory, views):
    made = type(world)(tmp_path_factory.mktemp("mixed") / "world")
    made.add_shards(samples_of(ROWS), ROWS_PER_TAR)
    made.teacher.symlink_to(world.teacher)
    plain = views().policy.model_dump(mode="json")
    for repeats in (1, 2):
        policy = {**plain, "mix": MIX, "repeats": repeats}
        made.add_cache(f"mixed{repeats}", "all", {"policy": policy, "evaluation": {}, "aug_seeds": 4})
    made.add_cache("repeated", "all", {"policy": {**plain, "repeats": 2}, "evaluation": {}, "aug_seeds": 4})
    return made


def views_of(batches: list[batching.Batch]) -> list[tuple]:
    """What the loss sees of each view: key, mixed pixels, mixed label, row."""
    return [
        (batch.keys[place], *(part[place].numpy().tobytes() for part in (*parts, batch.rows["logits"])))
        for batch in batches
        for parts in [
            (batch_mix.mix_pixels(batch.pixels, batch.mix), batch_mix.mix_labels(batch.label, 10, 0.1, batch.mix))
        ]
        for place in batch.weight.nonzero().flatten().tolist()
    ]


@pytest.mark.parametrize("name", ["mixed1", "mixed2"])
def test_the_row_of_a_mixed_view_is_the_live_teachers_answer(mixed, name):
    cache, shards = store_reader.open(mixed.cache(name)), index.read(mixed.shards)
    predictor = predict.Predictor(
        teacher_network.load(mixed.teacher, torch.device("cpu")),
        teacher_network.read_identity(mixed.teacher),
        torch.device("cpu"),
    )
    policy, alone = cache.recipe.policy, 0
    assert cache.recipe.format == 3
    for tar, shard in enumerate(shards.index.of_split("train")):
        samples = list(sample_reader.verified_samples(shard, shards.path(shard)))
        for seed in range(4):
            views = []
            for sample in samples:
                own = mixed_in_float64(cache.recipe, samples, shard.sha256, sample, seed)
                alone += mixing.partner_row(policy, shard.nsamples, shard.sha256, seed, sample.row) is None
                views.append(own)
            live = predictor.logits(np.stack(views))
            assert np.allclose(cache.block(tar, seed).logits_BC, live, rtol=0, atol=1e-4)
            if len(samples) > 1:
                assert not np.allclose(cache.block(tar, seed).logits_BC, live[::-1], rtol=0, atol=1e-2)
    assert alone == 4 * 4


def mixed_in_float64(recipe, samples, tar: str, sample, seed: int) -> np.ndarray:
    """Written anew: the views of both images, summed or cut."""
    policy, size = recipe.policy, recipe.teacher.size
    other = mixing.partner_row(policy, len(samples), tar, seed, sample.row)
    views = [
        mixing.render_mixed(policy, [decode.rgb_pixels(one.image, "x")], [one.key], seed, size)[0]
        for one in (sample, *([samples[other]] if other is not None else []))
    ]
    if other is None:
        return views[0]
    drawn = mixing.draw_params(policy.mix, sample.key, seed)
    if drawn.box is None:
        return np.floor(drawn.weight * views[0].astype(float) + (1 - drawn.weight) * views[1] + 0.5).astype(np.uint8)
    left, top, right, bottom = (int(np.floor(edge * size + 0.5)) for edge in drawn.box)
    views[0][:, top:bottom, left:right] = views[1][:, top:bottom, left:right]
    return views[0]


def test_targets_do_not_depend_on_the_batch(mixed):
    found = [
        views_of(list(feed.batches(mixed.plan("mixed1", lanes=1, batch_size=size, passes=1), workers=0)))
        for size in (2, 8, 64)
    ]
    assert len({view[0] for view in found[0]}) == ROWS
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create . worker processes")  # on fewer cores, for once
def test_targets_do_not_depend_on_workers_or_lanes(mixed):
    alone = list(feed.batches(mixed.plan("mixed2", lanes=12, batch_size=48, passes=2), workers=0))
    for workers in (1, 2, 3, 4):
        batches = list(feed.batches(mixed.plan("mixed2", lanes=12, batch_size=48, passes=2), workers=workers))
        assert [batch.keys for batch in batches] == [batch.keys for batch in alone]
        assert views_of(batches) == views_of(alone)
    other = list(feed.batches(mixed.plan("mixed2", lanes=2, batch_size=8, passes=2), workers=0))
    assert sorted(views_of(other)) == sorted(views_of(alone))


def test_targets_do_not_depend_on_ranks(mixed):
    """The parts of all ranks, one after the other, are the batch of one."""
    plan = mixed.plan("mixed2", lanes=12, batch_size=48, passes=2)
    alone = views_of(list(feed.batches(plan, workers=0)))
    for count in (2, 3, 4):
        parts = zip(*(feed.batches(plan, workers=0, rank=rank, ranks=count) for rank in range(count)), strict=True)
        assert views_of([part for batch in parts for part in batch]) == alone


@pytest.mark.parametrize(("name", "atom"), [("mixed2", 4), ("repeated", 2)])
def test_an_image_meets_its_repeats_and_its_partner_in_one_atom(mixed, name, atom):
    cache, shards = store_reader.open(mixed.cache(name)), index.read(mixed.shards)
    place_of = {key: (tar, row) for tar in range(4) for row, key in enumerate(cache.keys(tar))}
    batches = list(feed.batches(mixed.plan(name, lanes=2, batch_size=4 * atom, passes=3), workers=0))
    for number, some in enumerate(np.array_split(np.arange(len(batches)), 3)):
        seeds = (2 * (number % 2), 2 * (number % 2) + 1)
        found = []
        for batch in (batches[at] for at in some):
            for first in range(0, len(batch.keys), atom):
                keys = batch.keys[first : first + atom]
                assert keys[::2] == keys[1::2]
                for at, key in enumerate(keys):
                    if key:
                        tar, row = place_of[key]
                        expected = cache.block(tar, seeds[at % 2]).logits_BC[row]
                        assert np.array_equal(batch.rows["logits"][first + at].numpy(), expected)
                if atom == 4 and keys[0]:
                    tar, row = place_of[keys[0]]
                    shard = shards.index.of_split("train")[tar]
                    other = mixing.partner_row(cache.recipe.policy, shard.nsamples, shard.sha256, seeds[0], row)
                    assert keys[2] == ("" if other is None else cache.keys(tar)[other])
                    assert keys[2] or (batch.mix.keep_B[first : first + 4] == 1).all()
                found += [key for key in keys[::2] if key]
        assert sorted(found) == sorted(place_of)
    assert {float(weight) for batch in batches for weight in batch.weight} == {0.0, 1.0}


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_device_mixes_to_the_very_levels(repeats):
    bits = np.random.Philox(key=5).random_raw(12 * repeats * 3 * 16 * 16 // 8).view(np.uint8)
    pixels = bits.reshape(-1, 2, repeats, 3, 16, 16)
    drawn = [mixing.draw_params(MixupCutmix(**MIX), f"k{n}", 0) for n in range(pixels.shape[0] * 2 * repeats)]
    drawn[1] = mixing.UNMIXED
    found = batch_mix.mix_pixels(torch.from_numpy(pixels.reshape(-1, 3, 16, 16)), batch_mix.from_draws(drawn, repeats))
    for at in np.ndindex(pixels.shape[:3]):
        place = np.ravel_multi_index(at, pixels.shape[:3])
        expected = pixels[at].copy()
        mixing.blend(expected, pixels[at[0], 1 - at[1], at[2]], drawn[place])
        assert np.array_equal(found[place].numpy(), expected)
    assert {one.box is None for one in drawn} == {True, False}


def test_labels_are_mixed_like_pixels():
    drawn = [mixing.MixParams(own, None) for own in (0.75, 0.5, 0.25, 1.0)]
    found = batch_mix.mix_labels(torch.tensor([1, 1, 3, 3]), 5, 0.1, batch_mix.from_draws(drawn, 2))
    for row, (own, label, other) in zip(found, ((0.75, 1, 3), (0.5, 1, 3), (0.25, 3, 1), (1.0, 3, 1)), strict=True):
        expected = torch.full((5,), 0.02)
        expected[label] += 0.9 * own
        expected[other] += 0.9 * (1 - own)
        assert torch.allclose(row, expected, atol=1e-6)


def test_a_mixed_canary_shows_both_images(mixed):
    cache, shards = store_reader.open(mixed.cache("mixed2")), index.read(mixed.shards)
    shard = shards.index.of_split("train")[0]
    canary = cache.unit(0, 0).canary
    assert mixing.partner_row(cache.recipe.policy, 7, shard.sha256, canary.aug_seed, canary.row) is not None
    with sample_reader.open_tar(shard, shards.path(shard)) as samples:
        pixels = replay.render_view(cache.recipe, cache.extent.tars[0], samples, canary.row, canary.aug_seed)
    assert np.array_equal(pixels, cache.canary(0))


def test_the_paper_counts_views(recipe):
    full = schedule.from_epochs(recipe(epochs=30, warmup_epochs=5), 100, 3)
    paper = schedule.from_epochs(recipe(epochs=30, warmup_epochs=5, epoch="views"), 100, 3)
    assert (full.total, full.warmup, full.passes) == (3000, 500, 30)
    assert (paper.total, paper.warmup, paper.passes) == (1000, 167, 10)
    assert paper.position(250) == (2, 50)


def test_a_batch_that_would_part_a_pair_is_refused(mixed, recipe):
    cache, shards = store_reader.open(mixed.cache("mixed2")), index.read(mixed.shards)
    with pytest.raises(
        errors.ConfigError, match=r"batch_size must be a multiple of 16: 4 lanes of 4 views .* Got 24\."
    ):
        schedule.plan_schedule(recipe(batch_size=24, lanes=4), shards, cache.recipe.policy, 1)
    assert schedule.plan_schedule(recipe(batch_size=16, lanes=4), shards, cache.recipe.policy, 1).steps_a_pass == 4


def test_a_cache_of_fewer_seeds_than_a_block_is_refused(mixed, recipe, student, views, tmp_path):
    folders = student_run.RunFolders(tmp_path, tmp_path / "model", tmp_path / "curves")
    whole = student_spec.Student("x", student(accept=["policy"]), recipe())
    with pytest.raises(
        errors.IdentityError, match=r"aug_seeds must be at least 2, the repeats of its policy\. Got 1\."
    ):
        train_cached.train_from_cache(whole, views(aug_seeds=1), mixed.shards, mixed.cache("mixed2"), folders)


def test_seeds_come_in_whole_blocks():
    with pytest.raises(errors.ConfigError, match=r"aug_seeds must be a multiple of policy\.repeats, 3"):
        config.parse({"policy": {"repeats": 3}, "evaluation": {}, "aug_seeds": 4}, views_config.ViewsConfig, "v")
