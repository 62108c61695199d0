"""The report as one HTML page that needs nothing but itself."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
import markupsafe

from teachonce.core import terminal
from teachonce.evaluate import predictions
from teachonce.format import schema
from teachonce.report import (
    convergence,
    disagreements,
    figures,
    gallery,
    load_metrics,
    report_table,
    savings,
    seed_spread,
    summary,
)
from teachonce.store import tau_range

_TEMPLATE = "page.html.jinja"
_DIGITS = tuple("0123456789")


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the page shows, numbers and pictures."""

    metrics: load_metrics.StageMetrics
    """What the stages recorded of themselves."""
    numbers: summary.Summary
    """Numbers of the printed table."""
    matrix: disagreements.Matrix
    """Disagreements, of the first student of each group."""
    views: gallery.Gallery
    """Some training views, as the teacher saw them."""
    recipe: schema.Recipe
    """What a row of the training store means."""
    classes: tuple[str, ...]
    """Class names in label order."""


def render_html(content: ReportData) -> str:
    """The page as HTML; every text from data is escaped, and shows nothing that only a machine would see."""
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
        "percent": _percent,
        "seconds": report_table.format_duration,
        "size": _size,
        "share": report_table.format_score,
    }
    metrics, numbers = content.metrics, content.numbers
    longest_s = max((cost.wall_s for cost in metrics.costs), default=0.0)
    return environment.get_template(_TEMPLATE).render(
        content=content,
        metrics=metrics,
        numbers=numbers,
        heads=predictions.HEAD_TITLES,
        rows=[(name, numbers.students[name], metrics.students[name]) for name in numbers.order],
        knobs=report_table.format_knobs,
        main_head=seed_spread.main_head,
        quarter={report_table.QUARTER[name]: name for name in convergence.CURVES},
        fall=report_table.format_drop,
        spread=report_table.format_spread,
        has_seeds=any(len(group.members) > 1 for group in numbers.groups),
        plus_minus=report_table.explain_uncertainty(numbers),
        costs=[(cost, report_table.format_facts(cost), cost.wall_s / max(longest_s, 1e-9)) for cost in metrics.costs],
        wall_times=savings.compare_wall_times(metrics.costs, numbers.order, report_table.distilled_students(numbers)),
        elsewhere=report_table.elsewhere(metrics.costs, numbers),
        describe_savings=report_table.describe_savings,
        fidelity=tau_range.distances_by_k(numbers.cache.fidelity),
        figures={name: markupsafe.Markup(svg) for name, svg in _figures(content).items()},  # noqa: S704  our own SVG
        shade=_shade(content.matrix),
        is_digits=content.classes == _DIGITS,
        policy=content.recipe.policy.model_dump_json(exclude_none=True, indent=2),
    )


def _visible(value: object) -> object:
    """A text without controls and marks of direction; it is escaped after this, unless it is our own markup."""
    return type(value)(terminal.printable_lines(value)) if isinstance(value, str) else value


def _figures(content: ReportData) -> dict[str, str]:
    metrics, numbers = content.metrics, content.numbers
    tokens = {name: student.token_cosine for name, student in metrics.students.items()}
    legend = {
        name: (position, terminal.printable(group.name))
        for position, group in enumerate(numbers.groups)
        for name in group.members
    }
    by_k = tau_range.distances_by_k(numbers.cache.fidelity)
    return {
        **({"accuracy": figures.plot_accuracy(numbers)} if numbers.labelled else {}),
        "curves": figures.plot_curves(metrics.curves, legend),
        **({"tokens": figures.plot_token_cosines(tokens, legend)} if any(tokens.values()) else {}),
        **({"fidelity": figures.plot_fidelity(by_k)} if by_k else {}),
    }


def _shade(matrix: disagreements.Matrix) -> list[list[str]]:
    """Strength of each cell's colour, 0 to 0.55 of the largest share."""
    # Not up to full strength: a number stands on the colour, and must stay legible.
    largest = max(float(matrix.share_WW.max()), 1e-9)
    return [[f"{0.55 * share / largest:.3f}" for share in row] for row in matrix.share_WW.tolist()]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _size(count: float) -> str:
    """Bytes for people: 1.4 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
