"""What is shipped in configs/: every file parses, and those that are named together fit together."""

from pathlib import Path

import pytest

from teachonce.cache import cache_config
from teachonce.core import config, errors
from teachonce.prepare import dataset_config
from teachonce.student import batch_shares, lanes, schedule, student_spec, train_config
from teachonce.teacher import pretrained_weights, teacher_config
from teachonce.views import views_config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
FORMS = {
    "cache": cache_config.CacheConfig,
    "student": train_config.TrainConfig,
    "teacher": teacher_config.TeacherConfig,
    "views": views_config.ViewsConfig,
}
FILES = [path.relative_to(CONFIGS) for folder in FORMS for path in sorted((CONFIGS / folder).glob("*.yaml"))]
PARAMS = [ROOT / "params.yaml", *sorted((CONFIGS / "params").glob("*.yaml"))]
SIZES = ("tiny", "small", "base")
IMAGES = 1_281_167
"""Of ImageNet-1k's training split."""
TARS = [1000] * (IMAGES // 1000) + [IMAGES % 1000]


def load(folder: str, name: str):
    return config.load(CONFIGS / folder / f"{name}.yaml", FORMS[folder])


def recipe(name: str) -> train_config.TrainConfig:
    return load("student", name)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_parses(path):
    assert load(path.parent.name, path.stem)


@pytest.mark.parametrize("path", sorted((CONFIGS / "dataset").glob("*.yaml")), ids=lambda path: path.stem)
def test_data_parses(path):
    assert dataset_config.load(path)


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.stem)
def test_what_is_named_together_fits_together(path):
    params = config.read(path)
    views, rows = load("views", params["views"]), load("cache", params["cache"])
    assert dataset_config.load(CONFIGS / "dataset" / f"{params['dataset']}.yaml")
    assert load("teacher", params["teacher"])
    assert views.aug_seeds % rows.seeds_per_unit == 0
    for name in params["students"]:
        settings = recipe(student_spec.read_spec(path, name).model)
        assert settings.batch_size % (settings.lanes * batch_shares.views_per_mix_group(views.policy)) == 0, name


@pytest.mark.parametrize("name", [*(f"deit_{size}" for size in SIZES), "deit_base_384"])
def test_a_run_on_imagenet_is_as_long_as_deits_and_shows_no_view_twice(name):
    settings, views = recipe(name), load("views", "imagenet")
    policy = views.policy
    assert settings.epoch == "views"
    atoms = [-(-rows // 2) for rows in TARS]
    steps = lanes.steps_per_pass(
        sum(atoms), settings.batch_size // batch_shares.views_per_mix_group(policy), settings.lanes
    )
    length = schedule.from_epochs(settings, steps, policy.repeats)
    assert length.total * settings.batch_size == pytest.approx(settings.epochs * IMAGES, rel=1e-3)
    assert length.warmup * settings.batch_size == pytest.approx(5 * IMAGES, rel=1e-3)
    assert length.passes * policy.repeats <= views.aug_seeds


def test_deits_sizes_share_one_recipe():
    shared = [recipe(f"deit_{size}").model_dump(exclude={"architecture", "distilled_architecture"}) for size in SIZES]
    assert shared[0] == shared[1] == shared[2]


def test_the_rate_grows_with_the_batch_as_deits_does():
    settings = recipe("deit_tiny")
    assert settings.peak_lr == pytest.approx(0.0005 * settings.batch_size / 512)
    half = settings.model_copy(update={"batch_size": settings.batch_size // 2})
    assert half.peak_lr == settings.peak_lr / 2
    assert (half.warmup_lr, half.min_lr) == (1e-6, 1e-5)
    assert recipe("deit_base_384").peak_lr == pytest.approx(5e-6 * 528 / 512)


def test_views_are_mixed_and_repeated_as_the_paper_does():
    policy = load("views", "imagenet").policy
    assert policy.mix is not None
    assert tuple(policy.mix.model_dump().values()) == (0.8, 1.0, 1.0, 0.5)
    assert policy.repeats == 3
    assert policy.color_jitter is None


def test_table_3_is_there_for_each_size():
    path = CONFIGS / "params/imagenet.yaml"
    names = config.read(path)["students"]
    for short, size in zip(("ti", "s", "b"), SIZES, strict=True):
        specs = {kind: student_spec.read_spec(path, f"{short}-{kind}") for kind in ("plain", "soft", "hard", "token")}
        assert {spec.model for spec in specs.values()} == {f"deit_{size}"}
        assert [spec.has_token for spec in specs.values()] == [False, False, False, True]
        rows = [student_spec.all_keys(spec) for spec in specs.values()]
        assert [(row["kind"], row["alpha"], row["tau"]) for row in rows] == [
            ("none", None, None),
            ("soft", 0.1, 3.0),
            ("hard", 0.5, None),
            ("hard", 0.5, None),
        ]
        assert all(row["teacher_smoothing"] == 0 for row in rows)
        assert set(names) >= {f"{short}-{kind}" for kind in specs}


def test_the_teacher_at_384_is_the_same_but_for_its_size():
    small, large = (load("teacher", name).model_dump() for name in ("regnety_160", "regnety_160_384"))
    assert {name for name in small if small[name] != large[name]} == {"size", "batch_size"}
    assert (small["size"], large["size"]) == (224, 384)


def test_the_teachers_file_is_refused_until_its_digest_is_filled_in(tmp_path):
    named = load("teacher", "regnety_160").weights
    assert isinstance(named, teacher_config.CheckpointWeights)
    with pytest.raises(errors.ConfigError, match=r"data/regnety_160-a5fe301d\.pth: weights\.path must be a file"):
        pretrained_weights.read(named.model_copy(update={"path": str(tmp_path / named.path)}))
    path = tmp_path / "regnety_160-a5fe301d.pth"
    path.write_bytes(b"weights")
    with pytest.raises(errors.ConfigError, match=r"weights\.sha256 must be a5fe301d0.*Got [0-9a-f]{64}\. Correct the"):
        pretrained_weights.read(named.model_copy(update={"path": str(path)}))


def test_the_teachers_of_photographs_are_the_same_but_for_their_size():
    small, large = (load("teacher", name).model_dump() for name in ("photos_64", "photos_128"))
    assert {name for name in small if small[name] != large[name]} == {"size"}
    published = load("teacher", "tf_efficientnet_lite0")
    assert load("teacher", "photos_64").weights.start == published.weights
