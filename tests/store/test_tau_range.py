import math

import numpy as np
import pytest

from teachonce.format import codec, fidelity, fidelity_measurement
from teachonce.store import tau_range

FOUND = {
    f"k={k},tau={tau}": {"tv_mean": tv, "tv_p99": 1.0, "kl_mean": 1.0, "kl_p99": 1.0}
    for k, tvs in {10: (0.2, 0.3, 0.15, 0.08, 0.04), 5: (0.3, 0.4, 0.2, 0.1, 0.05)}.items()
    for tau, tv in zip((1, 2, 3, 5, 10), tvs, strict=True)
}

LOGITS = np.linspace(-4, 9, 36, dtype=np.float32).reshape(3, 12)


@pytest.mark.parametrize(
    ("k", "tau", "expected"),
    [
        (10, 3, tau_range.Distortion(0.15, 10, (3,))),
        # Between two taus it may be as bad as at the worse of them, whichever side that is.
        (10, 4, tau_range.Distortion(0.15, 10, (3, 5))),
        (10, 1.5, tau_range.Distortion(0.3, 10, (1, 2))),
        # A k that was not measured loses at most what the next smaller one does.
        (9, 5, tau_range.Distortion(0.1, 5, (5,))),
        (4, 5, tau_range.Distortion(math.inf)),
        (10, 10.5, tau_range.Distortion(math.inf, 10)),
        (10, 0.5, tau_range.Distortion(math.inf, 10)),
    ],
)
def test_the_loss_is_never_told_smaller_than_measured(k, tau, expected):
    assert tau_range.distortion_at(FOUND, k, tau) == expected


def test_the_taus_that_are_carried():
    assert tau_range.carried_taus(FOUND, 10, 0.1) == (5, 10)
    assert tau_range.carried_taus(FOUND, 5, 0.1) == (5, 10)
    assert tau_range.carried_taus(FOUND, 5, 0.01) == ()
    assert tau_range.carried_taus(FOUND, 7, 0.1) == ()


def warning(recipe, k, tau, bound=0.1, stored_k: int | str = 10) -> str | None:
    return tau_range.tau_warning({} if stored_k == "all" else FOUND, recipe(stored_k), k=k, tau=tau, bound=bound)


def test_one_line_names_k_tau_distance_bound_and_cure(recipe):
    assert warning(recipe, None, 4) == (
        "tau 4 with k 10: rows are 0.150 (mean total variation, measured for k 10, the worse of tau 3 and 5) from the "
        "full softmax, max_tv is 0.1; within it the cache carries tau 5, 10. Use a tau that it carries, more of its k, "
        "or a cache with a transform tail (configs/cache, tail)"
    )
    assert "rows are 0.200 (mean total variation, measured for k 5)" in warning(recipe, 6, 3)
    assert "full softmax was measured at tau 1 to 10 alone, max_tv is 0.1; within it the cache carries" in warning(
        recipe, None, 11
    )
    assert "from the teacher's full softmax was not measured, max_tv" in warning(recipe, 3, 5)


def test_within_the_bound_nothing_is_said(recipe):
    assert warning(recipe, None, 5) is None
    assert warning(recipe, 5, 5) is None
    assert warning(recipe, None, 2, bound=0.3) is None


def test_whole_rows_carry_every_tau_but_a_part_of_them_was_not_measured(recipe):
    assert warning(recipe, None, 40, stored_k="all") is None
    assert "was not measured" in warning(recipe, 2, 1, stored_k="all")


def test_reads_what_is_measured(recipe):
    measured = fidelity.distance_statistics(fidelity_measurement.measure_rows(LOGITS, codec.pack(LOGITS, 6)))
    assert list(tau_range.distances_by_k(measured)) == [6, 3, 1]
    for tau in fidelity.TAUS:
        assert tau_range.distortion_at(measured, 6, tau).tv == measured[f"k=6,tau={tau}"]["tv_mean"]
