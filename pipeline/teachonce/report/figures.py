"""Figures as inline SVG: text and axes take the page's colour, so that one figure serves light and dark.

Colours are those of Okabe & Ito (2008), chosen to be told apart by colour-blind eyes; lines differ in dash too.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from teachonce.core import terminal
from teachonce.evaluate import evaluation_record
from teachonce.report import load_metrics, summary

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
_DASHES = ("-", "--", "-.", ":")
_INK = "#010203"
"""Stands for the page's text colour until the SVG is written: matplotlib knows no `currentColor`."""
_STYLE: dict[Any, Any] = {
    # Text stays text: it takes the page's font, and can be searched and copied.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.2,
    "grid.color": _INK,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}
_PAPER = (0.06, 0.93)
_READINGS = {"class": "class head", "dist": "distillation head", "both": "both heads"}
_CURVES = {
    "label_loss": "label's part of the loss",
    "teacher_loss": "teacher's part of the loss",
    "top1": "right on training views",
}

LegendLabels = Mapping[str, tuple[int, str]]
"""Number and name of each student's group; students of one group share the look of their lines."""


def plot_accuracy(numbers: summary.Summary) -> str:
    """SVG of the top-1 of every answer, by group: single students and their mean; the teacher's as a band."""
    teacher = _per_cent(numbers.teacher)
    rows = [
        (
            terminal.printable(f"{group.name}: {label}" if len(group.top1) > 1 else group.name),
            position,
            [_per_cent(numbers.students[name].heads[key]) for name in group.members],
            group.top1[key],
        )
        for position, group in enumerate(numbers.groups)
        for key, label in _READINGS.items()
        if key in group.top1
    ]
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "accuracy"}):
        figure, axes = _axes(7.6, 1.0 + 0.32 * len(rows))
        low, high = (teacher[0] + sign * 2 * teacher[1] for sign in (-1, 1))
        axes.axvspan(low, min(high, 100.0), color=_INK, alpha=0.1, lw=0, label="teacher ± 2 standard errors")
        axes.axvline(teacher[0], color=_INK, lw=1)
        for height, (_, group, scores, mean) in enumerate(rows):
            colour = _COLOURS[group % len(_COLOURS)]
            # A single student has no spread over seeds: its bar is the error of the images alone.
            error = 2 * scores[0][1] if mean.sd is None else 100 * mean.sd
            axes.errorbar(100 * mean.mean, height, xerr=error, fmt="o", ms=6, capsize=3, color=colour)
            if len(scores) > 1:
                axes.plot([top1 for top1, _ in scores], [height] * len(scores), "|", ms=9, color=colour)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("top-1 in % of the validation images")
        _legend(figure)
        return _svg(figure)


def plot_curves(curves: Mapping[str, Mapping[str, load_metrics.Curve]], legend: LegendLabels) -> str:
    """SVG of all students' training curves, a panel each; the thin line is measured, the thick one its running mean."""
    panels = {name: title for name, title in _CURVES.items() if any(name in by_name for by_name in curves.values())}
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "curves"}):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, title) in zip(row, panels.items(), strict=True):
            for student, by_name in curves.items():
                if name in by_name:
                    steps, values = by_name[name]
                    position, label = legend[student]
                    style = _line(position)
                    axes.plot(steps, values, color=style["color"], lw=0.6, alpha=0.35)
                    axes.plot(steps, _running_mean(values), lw=1.8, label=label, **style)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("step")
        _legend(figure)
        return _svg(figure)


def plot_token_cosines(
    layers_by_student: Mapping[str, tuple[evaluation_record.LayerCosine, ...]], legend: LegendLabels
) -> str:
    """SVG of the tokens' cosine by layer, with the DeiT paper's two values; students with one token are left out."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "tokens"}):
        figure, axes = _axes(6.4, 3.2)
        last = max(point.layer for layers in layers_by_student.values() for point in layers)
        for name, layers in layers_by_student.items():
            if layers:
                position, label = legend[name]
                axes.plot(*_points(layers), marker="o", ms=4, label=label, **_line(position))
        axes.plot([0, last], _PAPER, ls="", marker="D", mfc="none", color=_INK, label="DeiT paper: first and last")
        axes.set_ylim(
            min(0.0, *(point.cosine for layers in layers_by_student.values() for point in layers)) - 0.04, 1.04
        )
        axes.set_xticks(range(last + 1), ["input", *(str(layer) for layer in range(1, last + 1))])
        axes.set_xlabel("after block")
        axes.set_ylabel("cosine of the two tokens")
        _legend(figure)
        return _svg(figure)


def plot_fidelity(by_k: Mapping[int, Mapping[int, Mapping[str, float]]]) -> str:
    """SVG of the mean total variation to the teacher's full softmax by temperature, a line for each k."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "fidelity"}):
        figure, axes = _axes(6.4, 3.0)
        for position, (k, row) in enumerate(by_k.items()):
            values = [distances["tv_mean"] for distances in row.values()]
            axes.plot(list(row), values, marker="o", ms=4, label=f"k {k}", **_line(position))
        axes.set_ylim(bottom=0)
        axes.set_xticks(sorted({tau for row in by_k.values() for tau in row}))
        axes.set_xlabel("temperature τ")
        axes.set_ylabel("mean total variation")
        _legend(figure)
        return _svg(figure)


def _per_cent(score: evaluation_record.Accuracy) -> tuple[float, float]:
    """Top-1 and its standard error; a score of no labelled image has no place in a figure."""
    if score.top1 is None or score.top1_se is None:
        raise TypeError("the score has no accuracy")
    return 100 * score.top1, 100 * score.top1_se


def _points(layers: tuple[evaluation_record.LayerCosine, ...]) -> tuple[list[int], list[float]]:
    return [point.layer for point in layers], [point.cosine for point in layers]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Figure) -> None:
    """One legend for all panels, below them, each label once."""
    handle_by_label: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handle_by_label.setdefault(label, handle)
    figure.legend(
        handles=list(handle_by_label.values()),
        labels=list(handle_by_label),
        loc="outside lower center",
        ncols=min(4, len(handle_by_label)),
    )


def _line(position: int) -> dict[str, Any]:
    return {"color": _COLOURS[position % len(_COLOURS)], "ls": _DASHES[position % len(_DASHES)]}


def _running_mean(values: list[float]) -> list[float]:
    """Mean over a window of a tenth of the curve, narrower at its ends."""
    half = len(values) // 20
    return [float(np.mean(values[max(0, index - half) : index + half + 1])) for index in range(len(values))]


def _svg(figure: Figure) -> str:
    # Without date and versions: equal numbers give equal bytes. The salt does the same for the ids within.
    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=no_metadata)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Within a page namespaces are known, and the names of groups would repeat from figure to figure.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    return re.sub(r'<g id="[^"]*"', "<g", svg)
