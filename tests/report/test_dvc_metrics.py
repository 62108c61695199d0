"""The few numbers that DVC shows, which are compared from run to run."""

import pytest

from teachonce.report import dvc_metrics, seed_spread, write_report
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


def test_they_are_top1_in_per_cent_by_student_and_a_few_more(numbers):
    heads = {name: seed_spread.main_head(student.heads) for name, student in numbers.students.items()}
    assert flat(dvc_metrics.headline(numbers)) == {
        **{f"top1.{name}": round(100 * head.top1, 2) for name, head in heads.items()},
        "top1_se": round(100 * max(head.top1_se for head in heads.values()), 2),
        "teacher.top1": round(100 * numbers.teacher.top1, 2),
        "images": 13,
        "cache.views": 16,
        "cache.bytes_a_view": round(numbers.cache.bytes_a_view, 1),
        "cache.largest_tv_mean": 0.0,
    }


def test_of_parts_of_rows_the_distance_where_it_is_largest(top3):
    numbers, _ = write_report.build_page(top3.paths())
    metrics = dvc_metrics.headline(numbers)
    measured = tau_range.distances_by_k(numbers.cache.fidelity)
    means = [measured[3][tau]["tv_mean"] for tau in (1, 2, 3, 5, 10)]
    assert metrics["cache"]["largest_tv_mean"] == round(max(means), 4) > min(means)
    assert max(means) < measured[1][1]["tv_mean"], "fewer classes are farther away"


def test_without_labels_they_are_agreement_with_the_teacher(bare):
    numbers, _ = write_report.build_page(bare.paths())
    metrics = flat(dvc_metrics.headline(numbers))
    assert {name for name in metrics if not name.startswith("cache.")} == {
        "agreement.pupil",
        "agreement.twin",
        "images",
    }
    assert metrics["agreement.pupil"] == round(100 * numbers.students["pupil"].heads["class"].agreement, 2)
    assert metrics["images"] == 13
