"""A student's configuration: what is refused, and in which words."""

from pathlib import Path

import pytest

from teachonce.core import config, errors
from teachonce.student import student_spec, train_config

REFUSED_STUDENTS = {
    "students.x.tau is missing. Add it": {"kind": "soft", "alpha": 0.5},
    "students.x.alpha is missing. Add it": {"kind": "soft", "tau": 2.0},
    "students.x.alpha is missing. Add it ": {"kind": "hard"},
    "students.x.tau belongs to kind soft; kind hard has no use for it. Remove it": {
        "kind": "hard",
        "alpha": 0.5,
        "tau": 1.0,
    },
    "students.x.alpha belongs to kinds soft and hard; kind none has no use for it": {"kind": "none", "alpha": 0.0},
    "teacher_smoothing belongs to kind hard; kind soft has no use for it": {
        "kind": "soft",
        "alpha": 0.5,
        "tau": 1.0,
        "teacher_smoothing": 0.1,
    },
    "kind is refused: input should be 'none', 'soft' or 'hard'. Got 'warm'": {"kind": "warm"},
    "kind is missing. Add it": {},
    "alpha is refused: input should be less than or equal to 1. Got 1.5": {"kind": "hard", "alpha": 1.5},
    "tau is refused: input should be greater than 0. Got 0": {"kind": "soft", "alpha": 0.5, "tau": 0},
    "tau is refused: input should be less than or equal to 100. Got 100.5": {
        "kind": "soft",
        "alpha": 0.5,
        "tau": 100.5,
    },
    "k is refused: input should be greater than or equal to 1. Got 0": {"kind": "soft", "alpha": 0.5, "tau": 1, "k": 0},
    "weight is refused: input should be greater than 0. Got -1": {
        "kind": "soft",
        "alpha": 0.5,
        "tau": 1,
        "weight": -1,
    },
    "students.x.weight belongs to kind soft; kind hard has no use for it. Remove it": {
        "kind": "hard",
        "alpha": 0.5,
        "weight": True,
    },
    "weight belongs to kind soft; kind hard has no use for it": {"kind": "hard", "alpha": 0.5, "weight": 2},
    "k belongs to kind soft; kind none has no use for it": {"kind": "none", "k": 5},
    "max_tv belongs to kind soft; kind hard has no use for it": {"kind": "hard", "alpha": 0.5, "max_tv": 0.2},
    "max_tv is refused: input should be greater than 0. Got 0": {"kind": "soft", "alpha": 1, "tau": 1, "max_tv": 0},
    "students.x.alfa is not a known key. Did you mean alpha?": {"kind": "soft", "alfa": 0.5, "tau": 1},
    "students.x.kind is refused: input should be 'none', 'soft' or 'hard'. Got 'nnone'. Did you mean none?": {
        "kind": "nnone"
    },
    "temperature is not a known key": {"kind": "hard", "alpha": 0.5, "temperature": 3},
    "seed is refused: input should be a valid integer. Got '1'": {"kind": "none", "seed": "1"},
    "kl_scale is refused": {"kind": "soft", "alpha": 0.5, "tau": 1, "kl_scale": "mean"},
}
REFUSED_RECIPES = {
    "batch_size must be a multiple of lanes, 4": {"batch_size": 10},
    "lanes must be a multiple of workers, 3": {"workers": 3},
    "warmup_epochs must be below epochs, 10": {"warmup_epochs": 10},
    "lr is refused: input should be greater than 0. Got 0": {"lr": 0},
    "lr is refused: input should be less than or equal to 1. Got 1e+30": {"lr": 1e30},
    "min_lr is refused: input should be less than or equal to 1. Got 2": {"min_lr": 2},
    "warmup_lr is refused: input should be less than or equal to 1. Got 1e+16": {"warmup_lr": 1e16},
    "weight_decay is refused: input should be less than or equal to 1. Got 1e+30": {"weight_decay": 1e30},
    "lr × batch_size / lr_batch must be at most 1, not 4": {"lr": 0.5, "batch_size": 8, "lr_batch": 1},
    "std.0 is refused: input should be greater than or equal to 0.001. Got 0": {"std": [0, 1, 1]},
    "mean.1 is refused: input should be less than or equal to 10. Got 1e+38": {"mean": [0, 1e38, 0]},
    "smoothing is refused: input should be less than 1. Got 1.0": {"smoothing": 1.0},
    "ema_decay is refused": {"ema_decay": 1.0},
    "buffer is refused": {"buffer": 0},
    "precision is refused: input should be 'float32' or 'bfloat16'. Got 'float16'": {"precision": "float16"},
    "learning_rate is not a known key. Remove it or correct its spelling": {"learning_rate": 1},
    "batchsize is not a known key. Remove it or correct its spelling": {"batchsize": 1},
    "epoch_ is not a known key. Did you mean epoch?": {"epoch_": 1},
    "arguments is refused: drop_path_rate is set by drop_path": {"arguments": {"drop_path_rate": 0.1}},
    "size is refused: input should be greater than or equal to 8. Got 4": {"size": 4},
}


@pytest.mark.parametrize("message", REFUSED_STUDENTS)
def test_a_student_is_refused(tmp_path, message):
    (tmp_path / "params.yaml").write_text(f"students: {{x: { ({'model': 'x', **REFUSED_STUDENTS[message]})!r}}}\n")
    with pytest.raises(errors.ConfigError) as caught:
        student_spec.read_spec(tmp_path / "params.yaml", "x")
    assert message.strip() in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/params.yaml: students.x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("message", REFUSED_RECIPES)
def test_a_recipe_is_refused(recipe, message):
    with pytest.raises(errors.ConfigError) as caught:
        recipe(**REFUSED_RECIPES[message])
    assert message in str(caught.value)
    assert str(caught.value).startswith("configs/student/x.yaml: ")


NAMES = {
    "a.b": "a-b",
    "../x": "x",
    "a b": "a-b",
    "-x": "x",
    "é": "student",
    "1": "student-1",
    "1e3": "student-1e3",
    "2026-01-01": "student-2026-01-01",
    "soft v3": "soft-v3",
    "a@b": "a-b",
    "soft.v2": "soft-v2",
    "a' b": "a-b",
    "a;touch x": "a-touch-x",
    "null": "student-null",
    "True": "student-True",
    "": "student",
    "_x": "student-_x",
    "x" * 65: "x" * 32,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    path = tmp_path / "params.yaml"
    path.write_text(f'students: {{"{name}": {{model: x, kind: none}}}}\n', encoding="utf-8")
    with pytest.raises(errors.ConfigError) as caught:
        student_spec.read_spec(path, name)
    condition = "must be named with a letter, then at most 63 letters, digits, _ and -. Got "
    assert condition in str(caught.value)
    assert str(caught.value).endswith(f" Rename it, for instance: {NAMES[name]}")


def test_a_misspelt_rate_is_named_before_the_missing_one(recipe, tmp_path):
    text = (Path(__file__).parents[2] / "configs/student/deit_micro.yaml").read_text(encoding="utf-8")
    (tmp_path / "x.yaml").write_text(text.replace("\nlr:", "\nlearning_rate:"))
    with pytest.raises(errors.ConfigError) as caught:
        config.load(tmp_path / "x.yaml", train_config.TrainConfig)
    assert str(caught.value) == f"{tmp_path}/x.yaml: learning_rate is not a known key. Did you mean lr?"


@pytest.mark.parametrize("text", ["students: {}\n", "dataset: digits\n", "- 1\n", "students:\n"])
def test_a_missing_student_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(errors.ConfigError, match=r"students\.x is missing\. Add it, for instance: x: \{model"):
        student_spec.read_spec(tmp_path / "params.yaml", "x")


@pytest.mark.parametrize("kind", ["none", "soft", "hard"])
def test_an_entry_with_the_keys_of_every_kind_is_the_entry(student, kind):
    """As records hold it; of a key that the kind has no use for, only what says nothing."""
    spec = student(kind)
    entry = student_spec.all_keys(spec)
    assert set(entry) == {name for each in student_spec.SPECS for name in each.model_fields}
    assert student_spec.parse_spec(entry, Path("params.yaml"), "x") == spec


def test_a_token_is_there_where_something_is_distilled(student):
    assert student("soft").has_token
    assert student("hard").has_token
    assert not student("none").has_token
    assert not student("soft", token=False).has_token
    assert student("none", token=True).has_token


def test_what_the_project_ships_is_accepted():
    root = Path(__file__).parents[2]
    params = config.read(root / "params.yaml")
    for name, entry in params["students"].items():
        student = student_spec.read_spec(root / "params.yaml", name)
        assert student.model == entry["model"]
        assert config.load(root / f"configs/student/{student.model}.yaml", train_config.TrainConfig).epochs


def test_no_name_of_a_student(tmp_path):
    (tmp_path / "params.yaml").write_text("students: {soft: {model: x, kind: none}, hard: {model: x, kind: none}}\n")
    with pytest.raises(errors.ConfigError) as caught:
        student_spec.read_spec(tmp_path / "params.yaml", "")
    line = "--student must be the name of an entry under students: soft, hard. Got nothing. Name one"
    assert str(caught.value) == f"{tmp_path}/params.yaml: {line}"


def test_no_student_in_an_empty_file(tmp_path):
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(
        errors.ConfigError, match=r"params\.yaml: is empty\. Write what to run, or restore it: git check"
    ):
        student_spec.read_spec(tmp_path / "params.yaml", "x")
