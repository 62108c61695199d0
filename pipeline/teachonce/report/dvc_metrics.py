"""`metrics/top1.json`: the numbers that `dvc exp show` sets side by side.

DVC makes a column of each, for every student: what is not compared from run to run is left to the report.
"""

from teachonce.report import summary
from teachonce.store import tau_range

_HEADS = ("class", "dist", "both")


def headline(numbers: summary.Summary) -> dict[str, object]:
    """Top-1 with its standard error by student and head; where no image has a label, agreement with the teacher.

    Returns:
        Plain data. `images` is the n of these shares; `largest_tv_mean` tells how far the cache's rows are from the
        teacher's softmax: the mean total variation, at the temperature where it is largest.
    """
    measures = ("top1", "top1_se") if numbers.labelled else ("agreement",)
    distances_by_k = tau_range.distances_by_k(numbers.cache.fidelity)
    # Of the largest k, which is all that the cache keeps: smaller ones are measured to show what they would lose.
    distances = distances_by_k[max(distances_by_k)].values() if distances_by_k else ()
    return {
        **{measure: _by_student(numbers, measure) for measure in measures},
        "teacher": numbers.teacher.model_dump(include=set(measures), exclude_none=True),
        "images": numbers.labelled or numbers.images,
        "cache": {
            "views": numbers.cache.views,
            "bytes_a_view": numbers.cache.bytes_a_view,
            "largest_tv_mean": max((distance["tv_mean"] for distance in distances), default=0.0),
        },
    }


def _by_student(numbers: summary.Summary, measure: str) -> dict[str, dict[str, float]]:
    return {
        name: {head: getattr(student.heads[head], measure) for head in _HEADS if head in student.heads}
        for name, student in numbers.students.items()
    }
