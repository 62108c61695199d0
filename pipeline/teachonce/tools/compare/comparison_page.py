"""A comparison as one HTML page that needs nothing but itself."""

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2

from teachonce.core import files, outputs, terminal
from teachonce.evaluate import predictions
from teachonce.tools.compare import (
    chart,
    compared_students,
    comparison,
    comparison_charts,
    comparison_table,
    differing_knobs,
)

PAGE, NUMBERS = "index.html", "comparison.json"
_KIND = outputs.FolderKind(
    "an earlier comparison", PAGE, b"<title>teachonce: comparison", re.compile(re.escape(NUMBERS))
)
_HERE = Path(__file__).parent
_PAIRS = 200
"""Most pairs in the table: those of a hundred settings would fill a book."""


def page_output(folder: Path) -> outputs.Output:
    """The folder of the page."""
    return outputs.Output(folder, _KIND, ())


def write_page(
    out: outputs.Output,
    result: comparison.Comparison,
    students: Sequence[compared_students.ComparedStudent],
) -> None:
    """Write the page, and the numbers beside it.

    Args:
        out: the folder, which is replaced.
        result: the comparison.
        students: that it is of.
    """
    html = render_page(result, students)
    with out.draft() as draft:
        files.write_bytes(draft / PAGE, html.encode())
        files.write_json(draft / NUMBERS, result.model_dump(mode="json"))


def render_page(result: comparison.Comparison, students: Sequence[compared_students.ComparedStudent]) -> str:
    """The page as HTML; every text from data is escaped, and shows nothing that only a machine would see."""
    environment = jinja2.Environment(
        # The frame and the style of every page are the report's.
        loader=jinja2.FileSystemLoader([_HERE, _HERE.parents[1] / "report"]),
        # Names of students and revisions are anyone's: unescaped, one could run a script in the reader's browser.
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = comparison.group_students(students, result)
    curves = comparison_charts.chart_curves(groups)
    to_best = {difference.worse: difference for difference in result.differences if difference.better == 0}
    seconds = [comparison_table.train_seconds(setting) for setting in result.settings]
    return environment.get_template("comparison.html.jinja").render(
        result=result,
        labels=[comparison_table.label(result, setting) for setting in result.settings],
        to_best=to_best,
        seconds=seconds,
        longest_s=max((wall_s for wall_s in seconds if wall_s is not None), default=0.0),
        pairs=sorted(result.differences, key=lambda pair: not pair.passes)[:_PAIRS],
        knob_charts={name: chart.draw(each) for name, each in comparison_charts.chart_knobs(result).items()},
        curve_charts={name: chart.draw(each) for name, each in curves.items()},
        colour=chart.colour,
        value=differing_knobs.format_value,
        share=comparison_table.format_share,
        gap=comparison_table.format_gap,
        explain=comparison_table.explain(result),
        summarise_pairs=comparison_table.summarise_pairs(result),
        measure=comparison_table.MEASURES[result.measure],
        heads=predictions.HEAD_TITLES,
        groups=groups,
    )


def _visible(value: object) -> object:
    """A text without controls and marks of direction; it is escaped after this, unless it is our own markup."""
    return type(value)(terminal.printable_lines(value)) if isinstance(value, str) else value
