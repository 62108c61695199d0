"""The grid of forms: what it says of a form is what a store of that form takes and loses."""

import itertools

import numpy as np
import pytest

from teachonce.cache import basis_fit, frontier_measurement, store_writer
from teachonce.core import run_record
from teachonce.format import codec, fidelity, fidelity_measurement, layout, row_expansion, row_frontier, schema
from teachonce.views import view_policy

CLASSES, VIEWS, ROWS = 40, 60, 25


def logits(views: int, seed: int) -> np.ndarray:
    """A few directions and some noise, as real logits are."""
    bits = np.random.Philox(key=seed).random_raw(views * (CLASSES + 5)).reshape(views, -1)
    uniform = (bits >> np.uint64(11)) * 2.0**-53 - 0.5
    directions = np.random.Philox(key=99).random_raw(5 * CLASSES).reshape(5, CLASSES) / 2**64 - 0.5
    return (uniform[:, :5] @ directions * 40 + uniform[:, 5:]).astype(np.float32)


RECIPE = schema.Recipe(
    teacher=schema.Teacher(
        architecture="x",
        arguments={},
        weights_sha256="0" * 64,
        size=8,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        precision="float32",
        num_classes=CLASSES,
        classes_sha256="0" * 64,
    ),
    policy=view_policy.Policy(),
    k=3,
    tail="flat",
)


@pytest.fixture(scope="module")
def ground():
    return frontier_measurement.Holdout(
        logits(VIEWS, 1), basis_fit.principal_components(logits(200, 2), 30), RECIPE, ROWS
    )


@pytest.fixture(scope="module")
def frontier(ground):
    return frontier_measurement.evaluate_grid(ground, row_frontier.RowFormat(k=3, rank=30, step=0.5), views_fitted=200)


def test_the_grid_holds_every_form_and_the_chosen_one(frontier):
    forms = {(point.form.k, point.form.rank, point.form.step) for point in frontier.points}
    ks = (3, 5, 10, 20)
    assert forms == {(k, None, None) for k in ks} | set(itertools.product(ks, (30,), (0.5, 2.0, 3.0, 4.0)))
    sizes = [point.bytes_a_view for point in frontier.points]
    assert sizes == sorted(sizes)
    assert frontier.views_measured == VIEWS


@pytest.mark.parametrize("form", [(10, None, None), (3, 30, 0.5), (20, 30, 2.0)])
def test_bytes_and_distances_are_those_of_a_store(ground, frontier, tmp_path, form):
    k, rank, step = form
    (point,) = (point for point in frontier.points if (point.form.k, point.form.rank, point.form.step) == form)
    coded = codec.TailCoding(ground.basis, step) if rank else None
    transform = schema.TransformTail(rank=30, step=step, basis_sha256=ground.basis.sha256(step)) if rank else "flat"
    recipe = RECIPE.model_copy(update={"k": k, "tail": transform})
    size = 0
    for tar, start in enumerate(range(0, VIEWS, ROWS)):
        part = ground.logits_BC[start : start + ROWS]
        keys = [f"{start + row}" for row in range(len(part))]
        extent = schema.Extent(
            tars=({"url": "x", "nsamples": len(part), "sha256": "0" * 64, "keys_crc32": 0},),
            aug_seeds=1,
            seeds_per_unit=1,
            rows_per_tar=ROWS,
        )
        unit = schema.UnitRecord(
            tar=0,
            group=0,
            correct=0,
            views=len(part),
            canary=schema.Canary(row=0, aug_seed=0, sha256="0" * 64),
            objects={},
            fidelity={},
            versions=run_record.library_versions(),
            device="cpu",
        )
        answers = store_writer.UnitRows([codec.pack(part, k, coded)], keys, np.zeros((3, 8, 8), np.uint8))
        store_writer.write_unit(tmp_path / str(tar), recipe, extent, answers, unit)
        specs = layout.array_specs(recipe, ROWS)
        paths = [layout.object_path(name, spec, 0, 0) for name, spec in specs.items() if spec.per == "unit"]
        size += sum((tmp_path / str(tar) / path).stat().st_size for path in paths)
    assert point.bytes_a_view == pytest.approx(size / VIEWS, abs=0.006)
    rows = codec.pack(ground.logits_BC, k, coded)
    lost = fidelity.distance_statistics(
        fidelity_measurement.measure_rows(ground.logits_BC, rows, row_expansion.tail_decoder(recipe, ground.basis))
    )
    for tau, tv in zip(frontier.taus, point.tv, strict=True):
        assert tv == pytest.approx(lost[f"k={k},tau={tau}"]["tv_mean"], abs=2e-5)


def test_images_of_the_fit_are_not_measured():
    images = np.arange(10, dtype=np.float32)
    fit_BC, rest_BC = frontier_measurement.hold_out_views(np.broadcast_to(images[:, None], (3, 10, 2)))
    assert sorted(fit_BC[:, 0]) == sorted([0, 1, 2, 4, 5, 6, 8, 9] * 3)
    assert sorted(rest_BC[:, 0]) == sorted([3, 7] * 3)


def test_many_views_are_thinned(ground):
    many = frontier_measurement.Holdout(logits(2001, 3), ground.basis, RECIPE, 1000)
    assert frontier_measurement.evaluate_grid(many, row_frontier.RowFormat(k=3), views_fitted=200).views_measured == 667


def test_is_told_and_kept_and_costs_no_forward_again(coded, forwarded):
    lines: list[str] = []
    coded.make(write_line=lines.append)
    path = coded.out / row_frontier.NAME
    first, before = path.read_bytes(), forwarded()
    measured = row_frontier.read(coded.out)
    assert lines == [row_frontier.format_points(measured)]
    assert measured.chosen == row_frontier.RowFormat(k=2, rank=6, step=0.25)
    assert "<- configured" in lines[0]
    # Two tars of 8 rows under 2 seeds; every fourth image is measured.
    assert (measured.views_fitted, measured.views_measured) == (24, 8)
    coded.make(write_line=lines.append)
    assert lines == [lines[0]] * 2
    assert path.read_bytes() == first
    assert forwarded() == before


def test_tars_too_short_to_split_have_none(coded, make_shards, tmp_path):
    make_shards(tmp_path / "short", counts=(3, 3, 3, 3))
    few = coded.but(shards=tmp_path / "short")
    lines: list[str] = []
    few.make(write_line=lines.append)
    assert lines == []
    assert row_frontier.read(few.out) is None
