"""Figures as inline SVG: text, axes and lines take the page's colours, so that one figure serves light and dark.

Colours are the page's variables --c0 to --c5, after those of Okabe & Ito (2008), which were chosen to be told apart by
colour-blind eyes; lines differ in dash too. Figures are small, one to a panel, and set side by side by the page: a wide
one would shrink on a telephone until nobody could read it. What a line stands for is told by the page's own legend.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from teachonce.evaluate import evaluation_record
from teachonce.report import load_metrics, quantities, tradeoff

COLOURS = 6
DASHES = ("-", "--", "-.", ":")
_INK = "#010203"
"""Stands for the page's text colour until the SVG is written: matplotlib knows no `currentColor`."""
_STAND_INS = tuple(f"#0{position}0a0b" for position in range(COLOURS))
"""Stand for the page's variables, likewise."""
_STYLE: dict[Any, Any] = {
    # Text stays text: it takes the page's font, and can be searched and copied.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.2,
    "grid.color": _INK,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}
_SIZE = (4.2, 2.7)
_PAPER = (0.06, 0.93)

Positions = Mapping[str, int]
"""Number of each student's group; students of one group share the look of their lines."""


def plot_curve(title: str, curves: Mapping[str, load_metrics.Curve], positions: Positions) -> str:
    """SVG of one training curve of all students; the thin line is measured, the thick one its running mean.

    Args:
        title: what the curve is of.
        curves: by student.
        positions: of the students' groups.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes()
        for student, (steps, values) in curves.items():
            style = _line(positions[student])
            axes.plot(steps, values, color=style["color"], lw=0.6, alpha=0.35)
            axes.plot(steps, _running_mean(values), lw=1.8, **style)
        axes.set_xlabel("step")
        return _svg(figure, title)


def plot_passes(title: str, curves: Mapping[str, load_metrics.Curve], positions: Positions) -> str:
    """SVG of an accuracy that was measured at a few steps, in per cent.

    Args:
        title: what the curve is of.
        curves: by student; shares.
        positions: of the students' groups.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes()
        for student, (steps, shares) in curves.items():
            axes.plot(steps, [100 * share for share in shares], marker="o", ms=3, **_line(positions[student]))
        axes.set_xlabel("step")
        axes.set_ylabel("%")
        return _svg(figure, title)


def plot_tradeoff(title: str, points: Mapping[str, tuple[tradeoff.Network, float]]) -> str:
    """SVG of accuracy against what it costs, on a logarithmic axis; the teacher is the diamond.

    Args:
        title: of the axis of costs.
        points: networks by name, each with its cost; all of them have an accuracy.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes()
        for network, cost in points.values():
            marker, colour = ("D", _INK) if network.colour is None else ("o", _STAND_INS[network.colour % COLOURS])
            score = 100 * (network.score or 0.0)
            axes.plot([cost], [score], ls="", marker=marker, ms=7, clip_on=False, color=colour)
        axes.set_xscale("log")
        low, high = (edge([cost for _, cost in points.values()]) for edge in (min, max))
        axes.set_xlim(low / 1.4, high * 1.4)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantities.format_count(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(title)
        axes.set_ylabel("top-1 in %")
        return _svg(figure, title)


def plot_token_cosines(
    layers_by_student: Mapping[str, tuple[evaluation_record.LayerCosine, ...]], positions: Positions
) -> str:
    """SVG of the tokens' cosine by layer, with the DeiT paper's two values; students with one token are left out."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "tokens"}):
        figure, axes = _axes()
        last = max(point.layer for layers in layers_by_student.values() for point in layers)
        for name, layers in layers_by_student.items():
            if layers:
                axes.plot(*_points(layers), marker="o", ms=4, **_line(positions[name]))
        axes.plot([0, last], _PAPER, ls="", marker="D", mfc="none", color=_INK)
        axes.set_ylim(
            min(0.0, *(point.cosine for layers in layers_by_student.values() for point in layers)) - 0.04, 1.04
        )
        # Of many blocks, every second or third is enough to count by.
        stride = 1 + last // 8
        shown = range(0, last + 1, stride)
        axes.set_xticks(shown, ["input", *(str(layer) for layer in shown[1:])])
        axes.set_xlabel("after block")
        axes.set_ylabel("cosine of the two tokens")
        return _svg(figure, "cosine of the two tokens by block")


def plot_fidelity(by_k: Mapping[int, Mapping[int, Mapping[str, float]]]) -> str:
    """SVG of the mean total variation to the teacher's full softmax by temperature, a line for each k."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "fidelity"}):
        figure, axes = _axes()
        for position, row in enumerate(by_k.values()):
            values = [distances["tv_mean"] for distances in row.values()]
            axes.plot(list(row), values, marker="o", ms=4, **_line(position))
        axes.set_ylim(bottom=0)
        axes.set_xticks(sorted({tau for row in by_k.values() for tau in row}))
        axes.set_xlabel("temperature tau")
        axes.set_ylabel("mean total variation")
        return _svg(figure, "mean total variation by temperature")


def _points(layers: tuple[evaluation_record.LayerCosine, ...]) -> tuple[list[int], list[float]]:
    return [point.layer for point in layers], [point.cosine for point in layers]


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.subplots()


def _line(position: int) -> dict[str, Any]:
    return {"color": _STAND_INS[position % COLOURS], "ls": DASHES[position % len(DASHES)]}


def _running_mean(values: list[float]) -> list[float]:
    """Mean over a window of a tenth of the curve, narrower at its ends."""
    half = len(values) // 20
    return [float(np.mean(values[max(0, index - half) : index + half + 1])) for index in range(len(values))]


def _svg(figure: Figure, title: str) -> str:
    # Without date and versions: equal numbers give equal bytes. The salt does the same for the ids within.
    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=no_metadata)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    for position, stand_in in enumerate(_STAND_INS):
        svg = svg.replace(stand_in, f"var(--c{position})")
    # Within a page namespaces are known, and the names of groups would repeat from figure to figure.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
