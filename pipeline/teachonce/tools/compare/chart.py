"""A chart as inline SVG of the page's own colours and text, which needs no library to draw and stays small."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 42
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
"""Of Okabe & Ito (2008), where the page has none of its own; chosen to be told apart by colour-blind eyes."""
_DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True, slots=True)
class Line:
    """Points that belong together."""

    position: int | None
    """Number of its colour; the page's ink for None."""
    points: tuple[tuple[float, float], ...]
    """By rising x."""
    errors: tuple[float, ...] = ()
    """Half the bar of each point; empty where points have none, and are not marked."""
    marks: tuple[int, ...] = ()
    """Number of the colour of each point that is marked."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines, and levels to compare them with."""

    x_title: str
    """What x is."""
    y_title: str
    """What y is."""
    lines: tuple[Line, ...]
    """Each with a point at least."""
    levels: tuple[tuple[int | None, float], ...] = ()
    """Colour and height of horizontal lines; the page's ink for no colour."""
    x_ticks: tuple[float, ...] = ()
    """Values of x that are written; round ones where none are given."""


def draw(chart: Chart) -> Markup:
    """The chart as an SVG element."""
    xs = [x for line in chart.lines for x, _ in line.points]
    ys = [
        y + sign * error
        for line in chart.lines
        for (_, y), error in zip(line.points, line.errors or [0.0] * len(line.points), strict=True)
        for sign in (-1, 1)
    ]
    x_axis = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis(*_bounds([*ys, *(y for _, y in chart.levels)]), _HEIGHT - _BOTTOM, _TOP)
    parts = [*_frame(chart, x_axis, y_axis)]
    for colour, y in chart.levels:
        parts.append(_stroke(f"M{_LEFT} {y_axis(y)}H{_WIDTH - _RIGHT}", colour, "1.2", "4 4"))
    for line in chart.lines:
        parts += _line(line, x_axis, y_axis)
    label = f"{chart.y_title} by {chart.x_title}"
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" font-size="12">{}</svg>').format(
        _WIDTH, _HEIGHT, label, Markup().join(parts)
    )


def colour(position: int | None) -> str:
    """A CSS colour: of the page where it has such, of the text for None."""
    if position is None:
        return "currentColor"
    number = position % len(_COLOURS)
    return f"var(--c{number}, {_COLOURS[number]})"


class _Axis:
    """From values to places in the figure."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = (low, high) if high > low else (low - 0.5, high + 0.5)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> list[float]:
        """Some multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(count * step, 9) for count in range(first, last + 1)]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    margin = 0.06 * (max(values) - min(values))
    return min(values) - margin, max(values) + margin


def _frame(chart: Chart, x_axis: _Axis, y_axis: _Axis) -> list[Markup]:
    bottom = _HEIGHT - _BOTTOM
    parts = []
    for value in y_axis.ticks():
        parts.append(_grid(f"M{_LEFT} {y_axis(value)}H{_WIDTH - _RIGHT}"))
        parts.append(_text(_LEFT - 6, y_axis(value) + 4, f"{value:g}", "end"))
    for value in chart.x_ticks or x_axis.ticks():
        parts.append(_grid(f"M{x_axis(value)} {_TOP}V{bottom}"))
        parts.append(_text(x_axis(value), bottom + 16, f"{value:g}", "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, chart.x_title, "middle"))
    return parts


def _line(line: Line, x_axis: _Axis, y_axis: _Axis) -> list[Markup]:
    places = [(x_axis(x), y_axis(y)) for x, y in line.points]
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    dashes = _DASHES[(line.position or 0) // len(_COLOURS) % len(_DASHES)]
    parts = [_stroke(path, line.position, "1.8", dashes)]
    for (x, y), (_, value), error, mark in zip(places, line.points, line.errors, line.marks, strict=False):
        parts.append(_stroke(f"M{x} {y_axis(value - error)}V{y_axis(value + error)}", mark, "1.2"))
        parts.append(Markup('<circle cx="{}" cy="{}" r="4" fill="{}"/>').format(x, y, colour(mark)))
    return parts


def _stroke(path: str, position: int | None, width: str, dashes: str = "") -> Markup:
    element = Markup('<path d="{}" fill="none" stroke="{}" stroke-width="{}" stroke-dasharray="{}"/>')
    return element.format(path, colour(position), width, dashes)


def _grid(path: str) -> Markup:
    return Markup('<path d="{}" stroke="currentColor" stroke-opacity=".15"/>').format(path)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    element = Markup('<text x="{}" y="{}" text-anchor="{}" fill="currentColor">{}</text>')
    return element.format(x, y, anchor, escape(text))
