"""The charts of a comparison: accuracy by each number that differs, and the training curves."""

import itertools
from collections.abc import Sequence

from teachonce.report import load_metrics
from teachonce.tools.compare import chart, compared_students, comparison

_POINTS = 150
"""Most points of a curve, each a mean over some steps."""
_CURVES = {
    "label_loss": "label's part of the loss, nats",
    "teacher_loss": "teacher's part of the loss, nats",
    "top1": "right on training views, %",
}
_PASSES = "right on validation images, %"


def chart_knobs(result: comparison.Comparison) -> dict[str, chart.Chart]:
    """Accuracy by each knob that is a number and has two values in settings that are else alike, by its name."""
    charts = {}
    for knob in result.settings[0].knobs:
        lines = _knob_lines(result, knob)
        if lines:
            without = [(place, each) for place, each in enumerate(result.settings) if not _is_number(each.knobs[knob])]
            levels: list[tuple[int | None, float]] = [(place, 100 * setting.mean) for place, setting in without]
            charts[knob] = chart.Chart(
                x_title=knob,
                y_title=f"{result.measure}, %",
                lines=tuple(lines),
                levels=tuple(levels),
                x_ticks=tuple(sorted({x for line in lines for x, _ in line.points})),
            )
    return charts


def chart_curves(groups: Sequence[Sequence[compared_students.ComparedStudent]]) -> dict[str, chart.Chart]:
    """Training curves of all students, those of one setting in one colour, by what they are of."""
    charts = {}
    for curve, title in _CURVES.items():
        lines = tuple(
            chart.Line(position, _thin(student.curves[curve], 100 if curve == "top1" else 1))
            for position, group in enumerate(groups)
            for student in group
            if curve in student.curves and student.curves[curve][0]
        )
        if lines:
            charts[title] = chart.Chart("step", title, lines)
    way = tuple(
        chart.Line(position, tuple((float(point.step), 100 * point.top1) for point in points))
        for position, group in enumerate(groups)
        for student in group
        if (points := student.evaluation.accuracy_by_pass)
    )
    # Weights of a few moments, scored afterwards: nothing was chosen by them.
    return charts | ({_PASSES: chart.Chart("step", _PASSES, way)} if way else {})


def _knob_lines(result: comparison.Comparison, knob: str) -> list[chart.Line]:
    """A line for each set of settings that differ in this knob alone, of two values at least."""
    alike: dict[tuple[object, ...], list[tuple[float, int]]] = {}
    for position, setting in enumerate(result.settings):
        value = setting.knobs[knob]
        if isinstance(value, int | float) and _is_number(value):
            others = tuple(other for name, other in setting.knobs.items() if name != knob)
            alike.setdefault((setting.members[0].images, *others), []).append((float(value), position))
    lines = []
    for places in alike.values():
        if len({value for value, _ in places}) > 1:
            ordered = sorted(places)
            settings = [result.settings[position] for _, position in ordered]
            lines.append(
                chart.Line(
                    position=None,
                    points=tuple(
                        (value, 100 * setting.mean) for (value, _), setting in zip(ordered, settings, strict=True)
                    ),
                    errors=tuple(100 * _error(setting) for setting in settings),
                    marks=tuple(position for _, position in ordered),
                )
            )
    return lines


def _error(setting: comparison.Setting) -> float:
    return 2 * setting.image_se if setting.sd is None else setting.sd


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _thin(curve: load_metrics.Curve, scale: int) -> tuple[tuple[float, float], ...]:
    """Means over equal parts of a curve: single batches of augmented views would hide it."""
    steps, values = curve
    count = min(_POINTS, max(len(steps) // 3, 1))
    edges = [len(steps) * part // count for part in range(count + 1)]
    parts = [(start, end) for start, end in itertools.pairwise(edges) if end > start]
    return tuple((float(steps[end - 1]), scale * sum(values[start:end]) / (end - start)) for start, end in parts)
