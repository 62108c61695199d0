"""The report as one HTML page that needs nothing but itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import markupsafe
import numpy as np

from teachonce.core import terminal
from teachonce.evaluate import predictions
from teachonce.format import schema
from teachonce.report import (
    class_scores,
    disagreements,
    dot_plot,
    figures,
    gallery,
    load_metrics,
    mistake_pictures,
    policy_words,
    quantities,
    report_table,
    savings,
    seed_spread,
    summary,
    temperature_table,
    tradeoff,
)
from teachonce.store import tau_range

_TEMPLATE = "page.html.jinja"
_DIGITS = tuple("0123456789")
_FULL_MATRIX = 20
"""Classes up to which the confusions are a square: a larger one would not fit a screen."""
_HARDEST, _CONFUSIONS = 20, 12
_CURVES = {
    "label_loss": "label's part of the loss",
    "teacher_loss": "teacher's part of the loss",
    "top1": "right on training views",
}
_PASSES = "right on validation images, %"


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the page shows, numbers and pictures."""

    metrics: load_metrics.StageMetrics
    """What the stages recorded of themselves."""
    numbers: summary.Summary
    """Numbers of the printed table."""
    answers: Mapping[str, predictions.ClassPredictions]
    """Predictions of the first student of each group, by name."""
    subject: str
    """The student whose mistakes are shown."""
    mistakes: tuple[mistake_pictures.Mistake, ...]
    """Its surest ones."""
    views: gallery.Gallery
    """Some training views, as the teacher saw them."""
    temperatures: temperature_table.TemperatureTable
    """One of them at several temperatures."""
    recipe: schema.Recipe
    """What a row of the training store means."""
    classes: tuple[str, ...]
    """Class names in label order, as they are shown."""


def render_html(content: ReportData) -> str:
    """The page as HTML; every text from data is escaped, and shows nothing that only a machine would see."""
    metrics, numbers = content.metrics, content.numbers
    longest_s = max((cost.wall_s for cost in metrics.costs), default=0.0)
    fidelity = tau_range.distances_by_k(numbers.cache.fidelity)
    matrix = disagreements.compare_answers(content.answers)
    return (
        create_environment()
        .get_template(_TEMPLATE)
        .render(
            content=content,
            metrics=metrics,
            numbers=numbers,
            matrix=matrix,
            shade=_shade(matrix.share_WW),
            sections=_sections(content),
            legend_dots=_legend([group.name for group in numbers.groups]),
            legend_tokens=_token_legend(content),
            heads={head: predictions.HEAD_TITLES[head] for head in report_table.shown_heads(numbers)},
            main_heads={
                head: title
                for head, title in predictions.HEAD_TITLES.items()
                if head in report_table.main_heads(numbers)
            },
            rows=[(name, numbers.students[name], metrics.students[name]) for name in numbers.order],
            quarter={report_table.QUARTER[name]: name for name in report_table.shown_curves(numbers)},
            has_seeds=any(len(group.members) > 1 for group in numbers.groups),
            models=len({student.knobs.model for student in numbers.students.values()}),
            taus=temperature_table.TAUS,
            errors=_errors(content),
            tradeoff=tradeoff.weigh_networks(numbers, metrics),
            dots=dot_plot.plot_accuracies(numbers) if numbers.labelled else None,
            costs=[
                (cost, report_table.format_facts(cost), cost.wall_s / max(longest_s, 1e-9)) for cost in metrics.costs
            ],
            wall_times=savings.compare_wall_times(
                metrics.costs, numbers.order, report_table.distilled_students(numbers)
            ),
            fidelity=fidelity,
            fidelity_legend=_legend([f"{k} classes kept" for k in fidelity]),
            figures=_figures(content),
            is_digits=content.classes == _DIGITS,
            policy=policy_words.describe_policy(content.recipe.policy),
        )
    )


def create_environment() -> jinja2.Environment:
    """What all pages are rendered with: templates of this folder, texts escaped, numbers as people write them."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # Names of classes and students are anyone's: unescaped, one could run a script in the reader's browser.
        autoescape=True,
        finalize=_visible,
        # A name that is misspelt in the template must fail, not print nothing.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": quantities.format_percent,
        "seconds": quantities.format_duration,
        "size": quantities.format_bytes,
        "weights": quantities.format_weights,
        "share": report_table.format_score,
        "strong": _strong,
    }
    environment.globals |= {
        "knobs": report_table.format_knobs,
        "main_head": seed_spread.main_head,
        "fall": report_table.format_drop,
        "spread": report_table.format_spread,
        "explain_uncertainty": report_table.explain_uncertainty,
        "elsewhere": report_table.elsewhere,
        "describe_savings": report_table.describe_savings,
    }
    return environment


def _visible(value: object) -> object:
    """A text without controls and marks of direction; it is escaped after this, unless it is our own markup."""
    return type(value)(terminal.printable_lines(value)) if isinstance(value, str) else value


def _strong(text: str) -> markupsafe.Markup:
    """A sentence with its percentages in bold."""
    escaped = str(markupsafe.escape(terminal.printable_lines(text)))
    return markupsafe.Markup(re.sub(r"\d[\d.,]* %", r"<b>\g<0></b>", escaped))  # noqa: S704  escaped before


def _sections(content: ReportData) -> dict[str, str]:
    """Headings by anchor, of what there is to show."""
    numbers = content.numbers
    has_tokens = any(student.token_cosine for student in content.metrics.students.values())
    return {
        "comparison": "The students side by side",
        "teacher": "What the teacher saw, and said",
        "temperature": "What a temperature does",
        "errors": "Where students err" if numbers.labelled else "Where a student differs from its teacher",
        "tradeoff": "Accuracy against weights and speed" if numbers.labelled else "Weights and speed",
        "disagreement": "Who disagrees with whom",
        **({"tokens": "The two tokens of a distilled student"} if has_tokens else {}),
        "curves": "How they learned",
        "cache": "What the cache holds",
        "costs": "What it cost",
        "words": "How to read this page",
    }


def _legend(names: list[str]) -> list[tuple[int, str, str]]:
    """Colour, dash pattern and name of each line."""
    patterns = ("", "6 3", "7 2 2 2", "2 2")
    return [
        (position % figures.COLOURS, patterns[position % len(patterns)], name) for position, name in enumerate(names)
    ]


def _token_legend(content: ReportData) -> list[tuple[int, str, str]]:
    """Of the groups that have two tokens; each keeps the colour that it has elsewhere."""
    groups, students = content.numbers.groups, content.metrics.students
    lines = zip(groups, _legend([group.name for group in groups]), strict=True)
    return [line for group, line in lines if students[group.members[0]].token_cosine]


def _errors(content: ReportData) -> dict[str, object]:
    """What is told of wrong answers, where there are labels."""
    if not content.numbers.labelled:
        return {}
    counts_CC = class_scores.count_confusions(content.answers[content.subject], len(content.classes))
    scores = class_scores.score_classes(content.answers, content.classes)
    subject = list(content.answers).index(content.subject)
    return {
        "confusions": class_scores.list_confusions(counts_CC, content.classes, _CONFUSIONS),
        "scores": scores,
        "hardest": sorted(scores, key=lambda score: score.students[subject])[:_HARDEST],
        "counts": counts_CC.tolist() if len(content.classes) <= _FULL_MATRIX else None,
        # Of the wrong ones alone: the right ones outnumber them so far that all others would be white.
        "shade": _shade(np.where(np.eye(len(counts_CC), dtype=bool), 0, counts_CC)),
    }


def _figures(content: ReportData) -> dict[str, object]:
    """SVG by name; of curves, by their titles."""
    metrics, numbers = content.metrics, content.numbers
    positions = {name: place for place, group in enumerate(numbers.groups) for name in group.members}
    tokens = {name: student.token_cosine for name, student in metrics.students.items()}
    by_k = tau_range.distances_by_k(numbers.cache.fidelity)
    return {
        "curves": _curve_panels(metrics, positions),
        "tradeoff": _tradeoff_panels(tradeoff.weigh_networks(numbers, metrics)) if numbers.labelled else [],
        **({"tokens": _markup(figures.plot_token_cosines(tokens, positions))} if any(tokens.values()) else {}),
        **({"fidelity": _markup(figures.plot_fidelity(by_k))} if by_k else {}),
    }


def _curve_panels(metrics: load_metrics.StageMetrics, positions: figures.Positions) -> dict[str, markupsafe.Markup]:
    panels = {}
    for name, title in _CURVES.items():
        curves = {student: by_name[name] for student, by_name in metrics.curves.items() if name in by_name}
        if curves:
            panels[title] = _markup(figures.plot_curve(title, curves, positions))
    passes = {
        name: ([point.step for point in points], [point.top1 for point in points])
        for name, student in metrics.students.items()
        if (points := student.accuracy_by_pass)
    }
    if passes:
        panels[_PASSES] = _markup(figures.plot_passes(_PASSES, passes, positions))
    return panels


def _tradeoff_panels(weighed: tradeoff.Tradeoff) -> list[markupsafe.Markup]:
    networks = [network for network in weighed.networks if network.score is not None]
    by_weights = {network.name: (network, float(network.weights)) for network in networks}
    by_speed = {network.name: (network, rate) for network in networks if (rate := network.images_a_second)}
    panels = [figures.plot_tradeoff("weights", by_weights)]
    # One point is no comparison.
    if len(by_speed) > 1:
        panels.append(figures.plot_tradeoff("images a second", by_speed))
    return [_markup(svg) for svg in panels]


def _markup(svg: str) -> markupsafe.Markup:
    return markupsafe.Markup(svg)  # noqa: S704  our own figure, without a text of data


def _shade(values: np.ndarray) -> list[list[str]]:
    """Strength of each cell's colour, 0 to 0.55 of the largest value."""
    # Not up to full strength: a number stands on the colour, and must stay legible.
    largest = max(float(values.max()), 1e-9)
    return [[f"{0.55 * value / largest:.3f}" for value in row] for row in values.tolist()]
