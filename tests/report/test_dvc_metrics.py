"""The few numbers that DVC shows, which are compared from run to run."""

import pytest

from teachonce.report import dvc_metrics, write_report
from teachonce.store import tau_range


def flat(data: dict[str, object], prefix: str = "") -> dict[str, float]:
    """By names as DVC writes them over its columns."""
    leaves: dict[str, float] = {}
    for name, value in data.items():
        key = f"{prefix}{name}"
        leaves |= flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return leaves


@pytest.fixture
def numbers(whole):
    return write_report.build_page(whole.paths())[0]


def test_they_are_top1_by_student_and_head_and_at_most_ten_more(numbers):
    metrics = flat(dvc_metrics.headline(numbers))
    heads = {"plain": ("class",), "zeal": ("class", "dist", "both"), "hard-1": ("class", "dist", "both")}
    for name, each in heads.items():
        for head in each:
            score = numbers.students[name].heads[head]
            assert metrics.pop(f"top1.{name}.{head}") == score.top1
            assert metrics.pop(f"top1_se.{name}.{head}") == score.top1_se
    assert metrics == {
        "teacher.top1": numbers.teacher.top1,
        "teacher.top1_se": numbers.teacher.top1_se,
        "images": 13,
        "cache.views": 16,
        "cache.bytes_a_view": numbers.cache.bytes_a_view,
        "cache.largest_tv_mean": 0.0,
    }
    assert len(metrics) <= 10


def test_of_parts_of_rows_the_distance_where_it_is_largest(top3):
    numbers, _ = write_report.build_page(top3.paths())
    metrics = dvc_metrics.headline(numbers)
    measured = tau_range.distances_by_k(numbers.cache.fidelity)
    means = [measured[3][tau]["tv_mean"] for tau in (1, 2, 3, 5, 10)]
    assert metrics["cache"]["largest_tv_mean"] == max(means) > min(means)
    assert max(means) < measured[1][1]["tv_mean"], "fewer classes are farther away"


def test_without_labels_they_are_agreement_with_the_teacher(bare):
    numbers, _ = write_report.build_page(bare.paths())
    metrics = flat(dvc_metrics.headline(numbers))
    assert {name for name in metrics if "." not in name or not name.startswith("cache.")} == {
        "agreement.pupil.class",
        "agreement.twin.class",
        "agreement.twin.dist",
        "agreement.twin.both",
        "images",
    }
    assert metrics["agreement.pupil.class"] == numbers.students["pupil"].heads["class"].agreement
    assert metrics["images"] == 13
