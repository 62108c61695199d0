"""The price is arithmetic on what was timed here, and needs nothing but shards."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cache_bench
import pytest
import stage_processes
import yaml
import zarr

from teachonce.core import config, errors
from teachonce.format import layout
from teachonce.shards import index
from teachonce.student import train_config
from teachonce.tools.estimate import estimate_cost, measure, price, price_table, priced_settings

ROOT = Path(__file__).parents[3]


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = ["-W", "error", "-m", "teachonce", "estimate", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(folder)}
    return stage_processes.run(words, cwd=ROOT, environment=environment)


def rate(views: int, *seconds: float) -> measure.Throughput:
    return measure.throughput(views, seconds)


def settings(folder: Path, **changes: dict[str, object]) -> priced_settings.EstimateRequest:
    """The repository's configurations for digits with some values replaced, and its three students."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    files = {"views": params["views"], "teacher": params["teacher"], "cache": params["cache"], "student": "deit_micro"}
    for group, name in files.items():
        data = yaml.safe_load((ROOT / "configs" / group / f"{name}.yaml").read_text(encoding="utf-8"))
        path = folder / group / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(data | changes.get(group, {})), encoding="utf-8")
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params | changes.get("params", {})), encoding="utf-8")
    return priced_settings.EstimateRequest(path, folder)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """The shards of the default data: all that there is."""
    folder = tmp_path_factory.mktemp("digits")
    words = [sys.executable, "-m", "stages.prepare", "--config", "configs/dataset/digits.yaml", "--source", "data"]
    paths = [f"--{name}={folder / name}" for name in ("out", "metrics", "cost")]
    subprocess.run([*words, *paths], cwd=ROOT, check=True, capture_output=True, timeout=100)
    return folder / "out"


@pytest.fixture(scope="module")
def priced(digits, tmp_path_factory) -> price.Estimate:
    """The default pipeline, priced by the command before any teacher or cache is there."""
    place = tmp_path_factory.mktemp("place")
    paths = ("--params", "params.yaml", "--configs", "configs", "--shards", digits)
    done = command(place, *paths, "--seconds", 0.5, "--json")
    assert done.returncode == 0, done.stderr
    assert not list(place.iterdir()), "something was left behind"
    return price.Estimate.model_validate(json.loads(done.stdout))


def test_everything_in_params_is_priced(priced):
    assert (priced.train, priced.here, priced.val, priced.aug_seeds) == (600, 600, 1197, 64)
    assert priced.cache_views == 600 * 64 + 1197
    assert [student.names for student in priced.students] == [("plain",), ("soft",), ("hard",)]
    # 80 passes over 600 images, 60 views a step.
    assert {(student.steps, student.batch, student.views, student.processes) for student in priced.students} == {
        (800, 60, 48_000, 1)
    }
    assert [student.live_hours > 0 for student in priced.students] == [False, True, True]
    assert all("want more --seconds" in note for note in priced.notes), "nothing else is extrapolated"
    assert "cores of" in priced.device


def test_rates_are_medians_of_rounds_of_whole_batches(priced):
    for rate in (priced.cache_stage, priced.forward, *(student.rate for student in priced.students)):
        assert rate.rounds >= 3
        assert 0 < rate.slowest <= rate.views_s <= rate.fastest
    assert priced.cache_stage.views % 16 == 0, "units of 16 aug seeds"
    assert {student.rate.views for student in priced.students} <= {8, 16, 32, 64, 120}, "two steps, at most of 60 views"


def test_hours_are_of_these_rates(priced):
    assert priced.cache_hours == pytest.approx(39_597 / priced.cache_stage.views_s / 3600)
    for student in priced.students:
        assert student.hours == pytest.approx(48_000 / student.rate.views_s / 3600)
    live = 48_000 / priced.forward.views_s / 3600
    assert priced.students[1].live_hours == pytest.approx(live)
    assert priced.pays_after == pytest.approx(priced.cache_hours / live)
    training = sum(student.hours for student in priced.students)
    assert (priced.hours, priced.live_hours) == pytest.approx((priced.cache_hours + training, training + 2 * live))


def test_the_table_tells_it(priced):
    text = price_table.format_estimate(priced)
    for words in (
        "600 training images (600 here) under 64 aug seeds, 1,197 validation images; on ",
        "cache stage, all of it",
        "train soft, loader included",
        "48,000",
        "39,597",
        "k all, configured",
        "The cache has paid for itself after",
        "64 aug seeds",
        "80 aug seeds",
        "Checkpoints take up to ",
        "Not counted: ",
    ):
        assert words in text
    assert "k 10" not in text, "there are no more classes than ten"


def test_the_arithmetic_by_hand():
    """A cache stage of 100 s; students of 200 s, two of which would each have taken 100 s more; one of 10 s."""
    work = (
        price.StudentWork(
            ("a", "b"),
            distils=True,
            steps=100,
            batch=60,
            views=5000,
            seeds=50,
            processes=1,
            weights_bytes=100,
            rate=rate(60, 2.0, 1.0, 3.0),
        ),
        price.StudentWork(
            ("c",),
            distils=False,
            steps=10,
            batch=60,
            views=600,
            seeds=6,
            processes=1,
            weights_bytes=30,
            rate=rate(60, 1.0),
        ),
    )
    data = price.Workload(train=1000, val=200, aug_seeds=4)
    estimate = price.estimate(
        data,
        recipe(k=10),
        cache_rate=rate(42, 1.0),
        forward_rate=rate(50, 1.0),
        work=work,
        device="here",
        here=1000,
        tars=3,
        ks=(10, 100),
    )
    assert estimate.cache_views == 4200
    hours = [
        estimate.cache_hours,
        *(student.hours for student in estimate.students),
        estimate.hours,
        estimate.live_hours,
    ]
    assert [round(3600 * value, 6) for value in hours] == [100, 200, 10, 510, 610]
    assert [round(3600 * student.live_hours, 6) for student in estimate.students] == [100, 0]
    assert estimate.pays_after == pytest.approx(1.0)
    by_form = {size.form: (size.bytes_a_view, size.configured) for size in estimate.sizes}
    assert by_form == {"k 10, flat tail": (44, True), "k all": (4000, False), "k 100, flat tail": (404, False)}
    assert estimate.sizes[0].bytes == {4: 4200 * 44, 6: 6200 * 44, 50: 50_200 * 44}
    assert estimate.canary_bytes == 3 * 3 * 224 * 224
    # Weights, average and two moments, twice for each of three students and once more for the largest.
    assert estimate.checkpoint_bytes == 4 * (2 * (100 + 100 + 30) + 100)


def test_a_cache_that_is_used_often_pays_within_the_first_student():
    student = price.StudentWork(
        ("a",), distils=True, steps=8, batch=100, views=800, seeds=8, processes=2, weights_bytes=4, rate=rate(100, 1.0)
    )
    data = price.Workload(train=100, val=0, aug_seeds=2)
    estimate = price.estimate(
        data,
        recipe(k=10),
        cache_rate=rate(100, 1.0),
        forward_rate=rate(100, 1.0),
        work=(student,),
        device="",
        here=1,
        tars=1,
        ks=(),
    )
    # Two processes share the student's steps, and their live teachers its views.
    assert [round(3600 * value, 6) for value in (estimate.students[0].hours, estimate.students[0].live_hours)] == [4, 4]
    assert estimate.pays_after == pytest.approx(0.5)
    assert "paid for itself after 50 % of the first distilled student" in price_table.format_estimate(estimate)
    nobody = price.estimate(
        data,
        recipe(k=10),
        cache_rate=rate(100, 1.0),
        forward_rate=rate(100, 1.0),
        work=(replace(student, distils=False),),
        device="",
        here=1,
        tars=1,
        ks=(),
    )
    assert nobody.pays_after is None
    assert "No student asks the teacher" in price_table.format_estimate(nobody)


def recipe(k: object) -> price.schema.Recipe:
    digest = "0" * 64
    teacher = {
        "architecture": "x",
        "arguments": {},
        "weights_sha256": digest,
        "size": 224,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "precision": "float32",
        "num_classes": 1000,
        "classes_sha256": digest,
    }
    return config.parse({"teacher": teacher, "policy": {}, "k": k, "tail": "flat"}, price.schema.Recipe, "recipe")


@pytest.mark.parametrize(
    "rows",
    [
        {"k": "all"},
        {"k": 3},
        {"k": 3, "tail": {"rank": 4, "step": 0.5, "fit_tars": 2}},
    ],
)
def test_bytes_are_those_of_the_arrays_that_the_cache_stage_makes(rows, tmp_path, teacher):
    whole = cache_bench.write_shards(tmp_path / "shards", counts=(8, 8), val=8)
    bench = cache_bench.Bench(tmp_path / "bench", whole.base, teacher).but(
        cache={**rows, "seeds_per_unit": 2, "workers": 0}
    )
    bench.make()
    raw = {"unit": 0, "canary": 0}
    for split in ("train", "val"):
        cache = bench.open(split)
        group = zarr.open_group(str(bench.out / f"{split}.zarr"), mode="r")
        for name, spec in layout.array_specs(cache.recipe, cache.extent.rows_per_tar).items():
            if name == "canary" or spec.per == "unit":
                raw["canary" if name == "canary" else "unit"] += group[name].nbytes
    estimate = price.estimate(
        price.Workload(train=16, val=8, aug_seeds=4),
        bench.open().recipe,
        cache_rate=rate(1, 1.0),
        forward_rate=rate(1, 1.0),
        work=(),
        device="",
        here=16,
        tars=3,
        ks=(),
    )
    configured = next(size for size in estimate.sizes if size.configured)
    assert configured.bytes == {4: raw["unit"]}
    assert estimate.canary_bytes == raw["canary"]


@pytest.mark.slow
def test_a_handful_of_images_prices_a_large_data_set(tmp_path, shards, monkeypatch):
    """Mixed, repeated views, coded rows, a teacher without its weights, loader processes, tars that moved."""
    policy = {"flip": 0.5, "mix": {}, "repeats": 2}
    weights = {"kind": "checkpoint", "path": "none", "sha256": "0" * 64}
    ask = settings(
        tmp_path / "configs",
        views={"policy": policy, "aug_seeds": 8},
        teacher={"weights": weights, "batch_size": 4096},
        cache={"k": 3, "tail": {"rank": 4, "step": 0.5, "fit_tars": 1}, "seeds_per_unit": 4, "workers": 1},
        student={"batch_size": 4096, "lanes": 2, "workers": 2, "epochs": 10, "accumulate": 8},
        params={"students": {"soft": {"model": "deit_micro", "kind": "soft", "alpha": 1.0, "tau": 2.0, "k": 2}}},
    )
    (tmp_path / "index").mkdir()
    shutil.copy(shards.base / index.NAME, tmp_path / "index")
    monkeypatch.setenv(index.BASE, str(shards.base))
    estimate = estimate_cost.measure_and_price(replace(ask, images=1_000_001, aug_seeds=4), tmp_path / "index", 0.01)
    assert (estimate.train, estimate.here, estimate.aug_seeds) == (1_000_001, 21, 4)
    (student,) = estimate.students
    # 500,001 pairs, 1,024 a step, half of them from each lane.
    assert (student.steps, student.batch, student.views) == (4890, 4096, 20_000_020)
    assert student.rate.views == 2 * 8, "two steps of the smallest batch: a pair of each lane, twice"
    assert estimate.sizes[0].form == "k 3, tail of rank 4"
    assert estimate.notes == (
        "1,000,001 training images are priced as if they were like the 21 here.",
        "The teacher: timed with batches of fewer views than 4,096, which want more --seconds.",
        "soft: timed with batches of 8 views; those of 4,096 want more --seconds.",
    )


def test_students_that_take_the_same_time_are_timed_once():
    groups = priced_settings.group_equal_students(
        priced_settings.read(
            priced_settings.EstimateRequest(ROOT / "configs/params/fashion_mnist.yaml", ROOT / "configs")
        )
    )
    assert [len(names) for names in groups] == [3, 6, 3]
    assert groups[1][:2] == ("soft1-0", "soft3-0")


def test_epochs_and_seeds_are_those_asked():
    priced = priced_settings.read(
        priced_settings.EstimateRequest(ROOT / "params.yaml", ROOT / "configs", aug_seeds=16, epochs=10)
    )
    assert priced.views.aug_seeds == 16
    assert {student.config.epochs for student in priced.students.values()} == {10}
    assert isinstance(priced.students["soft"].config, train_config.TrainConfig)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 0}, "estimate: --images must be at least 1. Got 0. Raise it"),
        ({"aug_seeds": -1}, "estimate: --seeds must be at least 1. Got -1"),
        ({"epochs": 5}, "deit_micro.yaml, with epochs 5: the file is refused: warmup_epochs must be below epochs, 5"),
        ({"params": Path("none.yaml")}, "none.yaml: cannot be read"),
        ({"configs": Path("none")}, "none/views/digits.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_priced_is_refused(changes, message):
    with pytest.raises(errors.ConfigError) as caught:
        priced_settings.read(
            replace(priced_settings.EstimateRequest(ROOT / "params.yaml", ROOT / "configs"), **changes)
        )
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"student": {"batch_size": 62, "lanes": 2}, "views": {"policy": {"repeats": 2}, "aug_seeds": 16}},
            "batch_size must be a multiple of 4: 2 lanes of 2 views that stay together. Got 62",
        ),
        ({"student": {"accumulate": 61}}, "accumulate must be at most 60"),
        ({"params": {"students": {}}}, "students is empty"),
        ({"params": {"views": 3}}, "params.yaml: views is refused"),
        ({"teacher": {"architecture": "none"}}, "timm cannot make none"),
        ({"cache": {"k": 10}}, "k must be below the 10 classes"),
        ({"cache": {"k": 3, "tail": {"rank": 10, "step": 1.0, "fit_tars": 1}}}, "rank must be below the 10 classes"),
        ({"views": {"aug_seeds": 3}}, "aug_seeds must be a multiple of seeds_per_unit, 16"),
    ],
)
def test_configurations_that_clash_are_refused_before_anything_is_timed(changes, message, tmp_path, shards):
    with pytest.raises(errors.ConfigError) as caught:
        estimate_cost.measure_and_price(settings(tmp_path / "configs", **changes), shards.base, 600.0)
    assert message in str(caught.value)


def test_the_command_refuses_in_one_line(tmp_path):
    paths = ("--params", "params.yaml", "--configs", "configs", "--shards", tmp_path / "none")
    done = command(tmp_path, *paths)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path}/none/index.json: cannot be read")
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(errors.ConfigError, match="--seconds must be above 0"):
        estimate_cost.measure_and_price(
            priced_settings.EstimateRequest(ROOT / "params.yaml", ROOT / "configs"), tmp_path, 0.0
        )


def test_a_round_is_long_enough_and_no_longer_than_it_must_be():
    taken: list[int] = []

    def take(size: int) -> float:
        taken.append(size)
        return size / 10

    # A fifth of the time is 0.35 s: four tenths are enough.
    assert measure.round_size(take, 100, 1.75) == 4
    assert taken == [1, 1, 2, 4], "the first one only warms up"
    assert measure.round_size(take, 3, 60.0) == 3
    assert len(measure.time_rounds(lambda: 1.0, 0.1)) == 3
    assert len(measure.time_rounds(lambda: 1.0, 7.5)) == 8


def test_a_rate_is_the_median_of_its_rounds():
    measured = rate(60, 2.0, 1.0, 4.0)
    assert (measured.rounds, measured.views_s, measured.slowest, measured.fastest) == (3, 30, 15, 60)


def test_a_batch_beyond_the_memory_is_one_line():
    import torch

    with (
        pytest.raises(errors.ConfigError, match="teacher: batch_size must be one that the device's memory holds"),
        measure.within_memory("teacher"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
