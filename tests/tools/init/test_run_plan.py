"""What is chosen for how many images, of which sizes and classes."""

from collections import Counter
from pathlib import Path

import pytest

from teachonce.tools.init import image_survey, run_plan

CONFIGS = Path(__file__).parents[3] / "configs"


def survey(images: int, classes: int = 5, side: int = 300) -> image_survey.Survey:
    counts = {"train": Counter(dict.fromkeys(range(classes), images // classes)), "val": Counter({0: 10})}
    return image_survey.Survey([str(label) for label in range(classes)], counts, sizes=[(side + 100, side)] * 3)


@pytest.mark.parametrize(
    ("images", "epochs"), [(10, 120), (240, 120), (400, 120), (1000, 48), (2000, 24), (50_000, 24)]
)
def test_more_images_are_seen_less_often(images, epochs):
    plan = run_plan.choose_run(survey(images), has_labels=True)
    assert plan.epochs == epochs
    assert plan.aug_seeds <= epochs
    assert plan.aug_seeds % run_plan.BLOCK == plan.epochs % run_plan.BLOCK == 0


def test_small_or_very_many_images_are_learnt_at_64_pixels():
    assert run_plan.choose_run(survey(500, side=64), has_labels=True).preset == "photos_64"
    assert run_plan.choose_run(survey(50_000), has_labels=True).preset == "photos_64"
    assert run_plan.choose_run(survey(500), has_labels=True).preset == "photos_128"


def test_rows_of_many_classes_and_views_keep_ten():
    assert run_plan.choose_run(survey(50_000, classes=1000), has_labels=True).cache == "photos_top10"
    assert run_plan.choose_run(survey(2000, classes=1000), has_labels=True).cache == "photos"
    assert run_plan.choose_run(survey(2_000_000, classes=10), has_labels=True).cache == "photos"


def test_a_slow_teacher_answers_fewer_views():
    plan = run_plan.choose_run(survey(1000), has_labels=False)
    assert (plan.teacher, plan.aug_seeds, plan.epochs, plan.students) == ("tf_efficientnet_lite0", 12, 48, 3)


def test_three_hundred_photographs_are_far_below_an_hour():
    plan = run_plan.choose_run(survey(240), has_labels=True)
    price = run_plan.price_run(plan, survey(240), CONFIGS)
    assert 0 < price.total_s * price.cores < 2 * 30 * 60
    unlabelled = run_plan.choose_run(survey(240), has_labels=False)
    assert run_plan.price_run(unlabelled, survey(240), CONFIGS).teacher_s == 0


@pytest.mark.parametrize(("images", "passes"), [(240, None), (3000, None), (6000, 14), (1_000_000, 3)])
def test_many_images_train_the_teacher_in_fewer_passes(images, passes):
    assert run_plan.choose_run(survey(images), has_labels=True).teacher_passes == passes
    assert run_plan.choose_run(survey(images), has_labels=False).teacher_passes is None
