"""`metrics/top1.json`: the numbers that `dvc exp show` sets side by side.

DVC makes a column of each, for every student, and shows all digits: so they are few, in per cent, and rounded. What is
not compared from run to run is left to the report, the other heads too.
"""

from teachonce.report import seed_spread, summary
from teachonce.store import tau_range

_DIGITS = 2
"""Of a number in per cent: a hundredth is one of ten thousand images."""


def headline(numbers: summary.Summary) -> dict[str, object]:
    """Top-1 in per cent by student, of both heads where there are two; without labels, agreement with the teacher.

    Returns:
        Plain data. `images` is the n of these shares, and `top1_se` the largest of their standard errors, in points;
        `largest_tv_mean` tells how far the cache's rows are from the teacher's softmax: the mean total variation, at
        the temperature where it is largest.
    """
    heads = {name: seed_spread.main_head(student.heads) for name, student in numbers.students.items()}
    distances_by_k = tau_range.distances_by_k(numbers.cache.fidelity)
    # Of the largest k, which is all that the cache keeps: smaller ones are measured to show what they would lose.
    distances = distances_by_k[max(distances_by_k)].values() if distances_by_k else ()
    measure = "top1" if numbers.labelled else "agreement"
    largest_se = max((head.top1_se or 0.0 for head in heads.values()), default=0.0)
    return {
        measure: {name: _per_cent(getattr(head, measure)) for name, head in heads.items()},
        **({"top1_se": _per_cent(largest_se)} if numbers.labelled else {}),
        "teacher": {} if numbers.teacher.top1 is None else {"top1": _per_cent(numbers.teacher.top1)},
        "images": numbers.labelled or numbers.images,
        "cache": {
            "views": numbers.cache.views,
            "bytes_a_view": round(numbers.cache.bytes_a_view, 1),
            "largest_tv_mean": round(max((distance["tv_mean"] for distance in distances), default=0.0), 4),
        },
    }


def _per_cent(share: float) -> float:
    return round(100 * share, _DIGITS)
