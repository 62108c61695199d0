"""What the last quarter of a run still gained: the fall of the loss, from the curves alone.

On mixed views the share of right answers says little, and the loss has a floor, the entropy of the mixed label; but the
floor is the same in every quarter, so that it falls out of a difference.
"""

import statistics

from teachonce.report import load_metrics

CURVES = ("label_loss", "teacher_loss")
"""Parts of the loss, by the names of their curves."""


def last_quarter_drop(curve: load_metrics.Curve) -> float:
    """Mean of a curve over the third quarter of its points less that over the last: above 0 where it still fell.

    A curve of fewer than four points has no quarters, and gives 0.
    """
    # Quarters of the points, not of the steps: points are evenly spaced, but for the last step's own.
    values = curve[1]
    half, last = len(values) // 2, 3 * len(values) // 4
    third = values[half:last]
    return statistics.fmean(third) - statistics.fmean(values[last:]) if third else 0.0
