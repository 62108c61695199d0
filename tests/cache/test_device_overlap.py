"""Batches side by side against batches in turn: the same rows of the same views, the same refusals."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from teachonce.cache import (
    cache_config,
    device_overlap,
    executors,
    rendered_batches,
    row_packing,
    run_units,
    store_writer,
)
from teachonce.core import errors
from teachonce.format import basis
from teachonce.shards import sample_reader
from teachonce.store import store_reader
from teachonce.teacher import teacher_network
from teachonce.views import view_policy

CPU = torch.device("cpu")
VIEWS = view_policy.Policy(
    affine=view_policy.Affine(degrees=15, translate=0.1), erase=view_policy.RandomErasing(probability=0.5)
)
MIXED = VIEWS.model_copy(update={"mix": view_policy.MixupCutmix(), "repeats": 2})


@pytest.fixture
def job_of(shards, teacher, tmp_path):
    def create(k=3, views=VIEWS, batch_size=8, scratch="scratch", device="cpu"):
        return run_units.create_job(
            shards,
            "train",
            teacher_network.read_identity(teacher),
            views,
            aug_seeds=4,
            settings=cache_config.CacheConfig(k=k, seeds_per_unit=4),
            scratch=tmp_path / scratch,
            batch_size=batch_size,
            device=device,
        )

    return create


def store(job, teacher, path, *, overlapped: bool) -> tuple[run_units.RunResult, store_reader.Cache]:
    executor = executors.InProcessExecutor(teacher, overlapped=overlapped)
    try:
        done = run_units.compute_missing(job, executor, "test")
    finally:
        executor.close()
    run_units.refuse_failed(done.failed)
    store_writer.assemble(path, job.recipe, job.extent, done.units)
    return done, store_reader.open(path)


def alike(overlapped: store_reader.Cache, reference: store_reader.Cache) -> None:
    for name in (tar.url for tar in reference.extent.tars):
        for aug_seed in range(reference.extent.aug_seeds):
            rows, expected = (cache.block(name, aug_seed) for cache in (overlapped, reference))
            assert np.array_equal(rows.class_id_BK, expected.class_id_BK)
            np.testing.assert_allclose(rows.logp_BK, expected.logp_BK, rtol=2.0**-10, atol=2.0**-24)
            np.testing.assert_allclose(rows.lse_B, expected.lse_B, rtol=2.0**-23)
            if expected.tail_BR is not None:
                apart = basis.unfold(rows.tail_BR) - basis.unfold(expected.tail_BR)
                assert np.abs(apart).max() <= 1
                assert (apart != 0).mean() < 0.01


@pytest.mark.parametrize("batch_size", [1, 8, 12, 1000])
@pytest.mark.parametrize("views", [VIEWS, MIXED], ids=["plain", "mixed"])
def test_rows_and_records_are_those_of_batches_in_turn(job_of, teacher, tmp_path, views, batch_size):
    forms = (("mine", True), ("theirs", False))
    (overlapped, stored), (reference, expected) = (
        store(
            job_of(views=views, batch_size=batch_size, scratch=name), teacher, tmp_path / f"{name}.zarr", overlapped=on
        )
        for name, on in forms
    )
    alike(stored, expected)
    assert (overlapped.views, overlapped.labelled, overlapped.correct) == (84, 84, reference.correct)
    for record, counterpart in zip(stored.units(), expected.units(), strict=True):
        assert record.canary == counterpart.canary
        assert record.fidelity.keys() == counterpart.fidelity.keys()
        for name, distances in counterpart.fidelity.items():
            assert record.fidelity[name].views == distances.views
            assert record.fidelity[name].tv == pytest.approx(distances.tv, rel=1e-2, abs=1e-4)


def test_whole_rows_are_equal_to_the_bit(job_of, teacher, tmp_path):
    done = [
        store(job_of("all", scratch=str(on)), teacher, tmp_path / f"{on}.zarr", overlapped=on)[0].units
        for on in (True, False)
    ]
    for (_, mine), (_, reference) in zip(*done, strict=True):
        assert mine == reference


def test_a_coded_tail_through_the_whole_stage(coded, monkeypatch):
    assert not device_overlap.is_suited_to(CPU)
    coded.make()
    forced = coded.but(root=coded.root / "forced")
    monkeypatch.setattr(device_overlap, "is_suited_to", lambda _: True)
    forced.make()
    alike(forced.open(), coded.open())
    alike(forced.open("val"), coded.open("val"))


def test_logits_that_are_no_numbers_are_refused_with_the_same_line(job_of, make_teacher, tmp_path):
    folder = make_teacher(tmp_path / "nan", scale=None)
    job = replace(
        job_of(batch_size=12),
        recipe=job_of().recipe.model_copy(update={"teacher": teacher_network.read_identity(folder)}),
    )
    lines = []
    for on in (True, False):
        with pytest.raises(errors.UnitsError) as caught:
            store(replace(job, scratch=tmp_path / str(on)), folder, tmp_path / "x.zarr", overlapped=on)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
    assert (
        "'train-000', aug seed 0, are not finite, or beyond 2^100 (12 views of the batch). Try precision: float32"
        in lines[0]
    )


class Sums:
    """Says of a view the sums of its channels; notes how many views it was asked."""

    device = CPU
    size = 32

    def __init__(self, bad_row: int = -1) -> None:
        self.counts: list[int] = []
        self.bad_row = bad_row

    def answer(self, views):
        start = sum(self.counts)
        self.counts.append(len(views))
        logits = views.float().sum(dim=(2, 3))
        if start <= self.bad_row < sum(self.counts):
            logits[self.bad_row - start, 1] = torch.nan
        return logits


@pytest.fixture
def through(job_of):
    """The first tar's batches through a teacher, side by side."""

    def run_through(teacher, batch_size, k="all"):
        job = job_of(batch_size=batch_size)
        entry = job.entries[0]
        atoms = rendered_batches.mix_groups(
            sample_reader.verified_samples(entry, job.shards.path(entry)), job.recipe, job.extent.tars[0], (0, 1, 2)
        )
        way = device_overlap.OverlappedForward(teacher, row_packing.Packing(k, 3, None, None, 0, entry.url))
        with ThreadPoolExecutor(1) as pool:
            rendered = {"batch_size": batch_size, "pool": pool, "buffer": way.buffer, "ahead": way.ahead}
            batches = rendered_batches.render_ahead(atoms, job.recipe, **rendered)
            yield from way.pack_batches(batches)

    return run_through


def test_a_batch_is_read_after_the_next_is_queued_and_before_its_memory_is_used_again(through):
    teacher = Sums()
    queued, sizes = [], []
    for batch, packed in through(teacher, 9):
        queued.append(len(teacher.counts))
        sizes.append(len(batch.views))
        expected = torch.from_numpy(batch.views).float().sum(dim=(2, 3))
        assert np.array_equal(packed.rows.logits_BC, expected)
    assert sizes == teacher.counts == [9, 9, 6]
    assert queued == [2, 3, 3]


def test_memory_is_used_again_and_grows_with_a_larger_batch():
    way = device_overlap.OverlappedForward(Sums(), row_packing.Packing("all", 3, None, None, 0, "x"))
    places = []
    for views in (4, 4, 4, 3, 6):
        buffer = way.buffer(views)
        assert (buffer.shape, buffer.dtype) == ((views, 3, 32, 32), np.uint8)
        places.append(buffer.ctypes.data)
        way._upload(views)
    assert places[0] == places[2] != places[1] == places[3]


@pytest.mark.parametrize("bad_row", [0, 10, 23])
def test_what_came_before_a_bad_view_is_given_out_first(through, bad_row):
    given = []
    with pytest.raises(errors.NumericsError) as caught:
        given.extend(batch.views.shape[0] for batch, _ in through(Sums(bad_row), 9, 2))
    assert given == [9] * (bad_row // 9)
    assert f"'train-{bad_row // 3:03d}', aug seed {bad_row % 3}, are not finite, or beyond 2^100 (1 views" in str(
        caught.value
    )


def test_the_views_that_are_measured_must_be_evenly_spaced():
    sample = sample_reader.Sample(0, "x", b"", 0)
    form = row_packing.Packing(2, 3, None, None, 4, "x")

    def places(*seeds: tuple[int, ...]) -> slice | None:
        atoms = tuple(rendered_batches.MixGroup((sample,), aug_seeds) for aug_seeds in seeds)
        return form.measured(rendered_batches.ViewBatch(atoms, np.zeros((sum(map(len, seeds)), 3, 1, 1), np.uint8)))

    assert places((4, 5), (4, 5), (6, 7)) == slice(0, 3, 2)
    assert places((5, 6)) is None
    assert places((4, 5)) == slice(0, 1, 1)
    with pytest.raises(RuntimeError, match="evenly spaced"):
        places((4,), (4,), (5,), (4,))


def test_the_switch_is_not_part_of_a_unit(job_of, teacher, tmp_path):
    job = job_of()
    store(job, teacher, tmp_path / "a.zarr", overlapped=True)
    assert store(job, teacher, tmp_path / "b.zarr", overlapped=False)[0].computed == 0
