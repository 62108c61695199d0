"""The accuracies as a figure of the page's own elements: it stays legible at any width, where an image would shrink."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from teachonce.evaluate import evaluation_record
from teachonce.report import summary

_READINGS = {"class": "class head", "dist": "distillation head", "both": "both heads"}


@dataclass(frozen=True, slots=True)
class Dot:
    """One answer of one group of students; places are in per cent of the figure's width."""

    name: str
    """The group, and which head."""
    colour: int
    """Position of the group: the number of its colour."""
    place: float
    """Of the mean."""
    low: float
    """Left end of the bar: two standard errors, or one standard deviation over seeds."""
    high: float
    """Right end."""
    seeds: tuple[float, ...]
    """Of each seed, where there are several."""
    value: float
    """The mean in per cent of the images."""


@dataclass(frozen=True, slots=True)
class DotPlot:
    """All answers on one axis, with the teacher's as a band."""

    dots: tuple[Dot, ...]
    """In the order of the groups."""
    band: tuple[float, float, float]
    """The teacher's low end, value and high end, in per cent of the width."""
    ticks: tuple[tuple[float, str], ...]
    """Places of the axis' numbers."""


def plot_accuracies(numbers: summary.Summary) -> DotPlot:
    """Top-1 of every answer in per cent: each group's mean with its uncertainty, and the teacher's."""
    intervals = {"teacher": _interval(numbers.teacher)}
    spreads: list[tuple[str, int, tuple[float, float, float], list[float]]] = []
    for position, group in enumerate(numbers.groups):
        for key, label in _READINGS.items():
            if key in group.top1:
                scores = [numbers.students[name].heads[key] for name in group.members]
                name = f"{group.name}: {label}" if len(group.top1) > 1 else group.name
                seeds = [100 * score.top1 for score in scores if score.top1 is not None]
                mean, sd = 100 * group.top1[key].mean, group.top1[key].sd
                # A single student has no spread over seeds: its bar is the error of the images alone.
                bar = _interval(scores[0]) if sd is None else (mean - 100 * sd, mean, mean + 100 * sd)
                spreads.append((name, position, bar, seeds if len(seeds) > 1 else []))
    values = [value for _, _, bar, seeds in spreads for value in (*bar, *seeds)] + list(intervals["teacher"])
    axis = _Axis(min(values), max(values))
    low, middle, high = map(axis.place, intervals["teacher"])
    return DotPlot(
        dots=tuple(
            Dot(
                name=name,
                colour=position,
                place=axis.place(bar[1]),
                low=axis.place(bar[0]),
                high=axis.place(bar[2]),
                seeds=tuple(map(axis.place, seeds)),
                value=bar[1],
            )
            for name, position, bar, seeds in spreads
        ),
        band=(low, middle, high),
        ticks=tuple((axis.place(value), f"{value:g}") for value in axis.ticks),
    )


class _Axis:
    """From values to places."""

    def __init__(self, low: float, high: float) -> None:
        margin = 0.04 * max(high - low, 0.5)
        self._low, self._high = max(low - margin, 0.0), min(high + margin, 100.0)
        self.ticks = _round_numbers(self._low, self._high)

    def place(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(100 * min(max(share, 0.0), 1.0), 3)


def _round_numbers(low: float, high: float) -> Sequence[float]:
    """Some multiples of 1, 2 or 5 times a power of ten, four to eight of them."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(count * step, 6) for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _interval(score: evaluation_record.Accuracy) -> tuple[float, float, float]:
    """Two standard errors to both sides, in per cent; no share passes 100."""
    top1, error = 100 * (score.top1 or 0.0), 200 * (score.top1_se or 0.0)
    return max(top1 - error, 0.0), top1, min(top1 + error, 100.0)
