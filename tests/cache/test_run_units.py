"""Law two at its root: a stored row is what the teacher says of that very view."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from teachonce.cache import (
    cache_config,
    executors,
    rendered_batches,
    run_units,
    store_writer,
    unit_lookup,
    unit_plan,
)
from teachonce.core import errors
from teachonce.format import codec
from teachonce.prepare import tar_writer
from teachonce.shards import decode, sample_reader
from teachonce.store import store_reader
from teachonce.teacher import predictor as predict
from teachonce.teacher import teacher_network
from teachonce.views import mixing, view_policy

VIEWS = view_policy.Policy(
    affine=view_policy.Affine(degrees=15, translate=0.1), erase=view_policy.RandomErasing(probability=0.5)
)


@pytest.fixture(scope="module")
def predictor(teacher):
    return predict.Predictor(
        teacher_network.load(teacher, torch.device("cpu")), teacher_network.read_identity(teacher), torch.device("cpu")
    )


@pytest.fixture
def job_of(shards, teacher, tmp_path):
    def create(k="all", seeds_per_unit=2, aug_seeds=4, batch_size=6, scratch="scratch"):
        return run_units.create_job(
            shards,
            "train",
            teacher_network.read_identity(teacher),
            VIEWS,
            aug_seeds=aug_seeds,
            settings=cache_config.CacheConfig(k=k, seeds_per_unit=seeds_per_unit),
            scratch=tmp_path / scratch,
            batch_size=batch_size,
            device="cpu",
        )

    return create


def store(job, teacher, path) -> run_units.RunResult:
    done = run_units.compute_missing(job, executors.InProcessExecutor(teacher), "test")
    store_writer.assemble(path, job.recipe, job.extent, done.units)
    return done


def live(job, predictor, tar: int, aug_seeds: tuple[int, ...], images: int) -> np.ndarray:
    """Logits (N, S, C) of a plain loop over the same batches, with no thread and no look-ahead."""
    entry = job.entries[tar]
    samples = list(sample_reader.verified_samples(entry, job.shards.path(entry)))
    answers = []
    for start in range(0, len(samples), images):
        views = [
            mixing.render_mixed(
                job.recipe.policy,
                [decode.rgb_pixels(sample.image, sample.key)],
                [sample.key],
                seed,
                job.recipe.teacher.size,
            )[0]
            for sample in samples[start : start + images]
            for seed in aug_seeds
        ]
        answers.append(predictor.logits(np.stack(views)).reshape(-1, len(aug_seeds), 10))
    return np.concatenate(answers)


@pytest.mark.parametrize(
    "form", [(1, 3, 3), (2, 6, 3), (4, 6, 1), (2, 1, 1), (2, 1000, 1000)], ids="seeds {0[0]}, batch {0[1]}".format
)
def test_rows_equal_a_live_teacher_to_the_bit(job_of, predictor, teacher, tmp_path, form):
    seeds_per_unit, batch_size, images = form
    job = job_of(seeds_per_unit=seeds_per_unit, batch_size=batch_size)
    done = store(job, teacher, tmp_path / "train.zarr")
    cache = store_reader.open(tmp_path / "train.zarr")
    correct = 0
    for item in unit_plan.enumerate_units(3, 4, seeds_per_unit):
        expected = live(job, predictor, item.tar, item.aug_seeds, images)
        for place, aug_seed in enumerate(item.aug_seeds):
            assert np.array_equal(cache.block(item.tar, aug_seed).logits_BC, expected[:, place])
        labels = [
            s.label
            for s in sample_reader.verified_samples(job.entries[item.tar], job.shards.path(job.entries[item.tar]))
        ]
        correct += int((expected.argmax(axis=2) == np.array(labels)[:, None]).sum())
    assert (done.views, done.correct, done.computed) == (21 * 4, correct, 3 * 4 // seeds_per_unit)
    assert len(np.unique(cache.block(0, 0).logits_BC)) > 60


def test_the_likeliest_classes_are_those_of_the_whole_row(job_of, predictor, teacher, tmp_path):
    job = job_of(k=3)
    store(job, teacher, tmp_path / "train.zarr")
    cache = store_reader.open(tmp_path / "train.zarr")
    for item in unit_plan.enumerate_units(3, 4, 2):
        expected = live(job, predictor, item.tar, item.aug_seeds, 3)
        for place, aug_seed in enumerate(item.aug_seeds):
            packed = codec.pack(expected[:, place], 3).arrays()
            arrays = cache.block(item.tar, aug_seed).arrays()
            assert all(np.array_equal(arrays[name], packed[name]) for name in packed)
    assert cache.fidelity["k=3,tau=1"]["tv_mean"] > 0
    # One aug seed of each unit is measured.
    assert sum(u.fidelity["k=3,tau=1"].views for u in cache.units()) == 21 * 2


def test_the_feed_renders_in_row_order_one_batch_ahead(job_of):
    job = job_of()
    entry = job.entries[0]
    taken = []

    def samples():
        for sample in sample_reader.verified_samples(entry, job.shards.path(entry)):
            taken.append(sample.row)
            yield sample

    with ThreadPoolExecutor(3) as pool:
        atoms = rendered_batches.mix_groups(samples(), job.recipe, job.extent.tars[0], (2, 5))
        batches = rendered_batches.render_ahead(atoms, job.recipe, batch_size=7, pool=pool)
        first = next(batches)
        assert taken == [0, 1, 2, 3, 4, 5]
        rest = list(batches)
    rows = [[atom.samples[0].row for atom in batch.groups] for batch in (first, *rest)]
    assert rows == [[0, 1, 2], [3, 4, 5], [6, 7]]
    for batch in (first, *rest):
        for place, atom in enumerate(batch.groups):
            for offset, (sample, seed) in enumerate(atom.views()):
                view = mixing.render_mixed(
                    job.recipe.policy,
                    [decode.rgb_pixels(sample.image, "x")],
                    [sample.key],
                    seed,
                    job.recipe.teacher.size,
                )[0]
                assert np.array_equal(batch.views[2 * place + offset], view)


def test_threads_that_decode_leave_the_warnings_of_the_process_as_they_are(job_of):
    job = job_of()
    entry = job.entries[0]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            atoms = rendered_batches.mix_groups(
                sample_reader.verified_samples(entry, job.shards.path(entry)), job.recipe, job.extent.tars[0], (0,)
            )
            for _ in rendered_batches.render_ahead(atoms, job.recipe, batch_size=8, pool=pool):
                pass
    with pytest.raises(UserWarning, match="still an error"):
        warnings.warn("still an error", UserWarning, stacklevel=1)


def test_a_damaged_image_is_named(job_of, make_shards, tmp_path):
    (tmp_path / "bad").mkdir()
    rows = [tar_writer.EncodedImage("broken", "png", b"\x89PNG\r\n\x1a\nnonsense", 0)]
    entry = next(tar_writer.write_samples(rows, tmp_path / "bad", split="train", rows_per_tar=1))
    samples = sample_reader.verified_samples(entry, tmp_path / "bad" / entry.url)
    job = job_of()
    atoms = rendered_batches.mix_groups(samples, job.recipe, job.extent.tars[0], (0,))
    with ThreadPoolExecutor(1) as pool, pytest.raises(errors.DataError, match="broken: cannot be decoded"):
        list(rendered_batches.render_ahead(atoms, job.recipe, batch_size=1, pool=pool))


def test_the_canary_is_a_view_the_teacher_saw(whole):
    cache = whole.open()
    for item in cache.units():
        assert 0 <= item.canary.row < cache.extent.tars[item.tar].nsamples
        assert item.canary.aug_seed // 2 == item.group
    assert len({(item.canary.row, item.canary.aug_seed) for item in cache.units()}) > 1


def test_bfloat16_is_near_and_not_equal(teacher, predictor):
    identity = teacher_network.read_identity(teacher).model_copy(update={"precision": "bfloat16"})
    half = predict.Predictor(teacher_network.load(teacher, torch.device("cpu")), identity, torch.device("cpu"))
    views = np.random.Philox(key=1).random_raw(4 * 3 * 32 * 32 // 8).view(np.uint8).reshape(4, 3, 32, 32)
    exact, rounded = predictor.logits(views), half.logits(views)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max() + 0.1


def test_normalisation_is_that_of_the_recipe():
    normal = predict.Normaliser((0.5, 0.25, 0.0), (0.5, 0.25, 1.0), torch.device("cpu"))
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert normal(pixels).flatten().tolist() == pytest.approx([-1.0, (0.2 - 0.25) / 0.25, 1.0], abs=1e-6)


def test_the_seeds_must_fill_their_units(job_of):
    with pytest.raises(errors.ConfigError, match="aug_seeds must be a multiple of seeds_per_unit, 3") as caught:
        job_of(seeds_per_unit=3)
    assert len(str(caught.value)) < 400
    with pytest.raises(errors.ConfigError, match="k must be below the 10 classes, or all"):
        job_of(k=10)


def test_units_have_names_of_all_that_decides_them(job_of):
    item = unit_plan.enumerate_units(3, 4, 2)[0]
    names = {
        unit_lookup.finished_folder(job_of(k="all"), item).name,
        unit_lookup.finished_folder(job_of(k=3), item).name,
        unit_lookup.finished_folder(job_of(), unit_plan.enumerate_units(3, 4, 2)[1]).name,
        unit_lookup.finished_folder(job_of(), unit_plan.enumerate_units(3, 4, 2)[3]).name,
    }
    assert len(names) == 4
    assert unit_lookup.finished_folder(job_of(aug_seeds=8), item).name in names
