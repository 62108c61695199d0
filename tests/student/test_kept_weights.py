"""Which weights a run keeps on its way."""

import pytest

from teachonce.student import kept_weights, schedule


@pytest.mark.parametrize(
    ("total", "kept"),
    [
        (1, ()),
        (10, ()),
        (11, (1,)),
        (80, (1, 2, 3, 4, 5, 6, 7)),
        (800, (10, 20, 30, 40, 50, 60, 70)),
        (95, (1, 2, 4, 5, 6, 7, 8)),
    ],
)
def test_the_ends_of_passes_evenly_and_never_the_end_of_the_run(total, kept):
    length = schedule.Schedule(steps_a_pass=10, total=total, warmup=0)
    assert kept_weights.kept_passes(length) == kept
    assert len(set(kept)) == len(kept)
    assert all(passes * 10 < total for passes in kept)
