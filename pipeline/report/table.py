"""The report as text: for a terminal, or as Markdown for a README."""

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.cache import reach
from pipeline.evaluate import predictions, schema
from pipeline.report import gather, summary

_WIDTH = 200
"""Wide enough for every column: a table is cut by the terminal rather than by an ellipsis."""
_HEADS = {"class": "class head", "dist": "distillation head", "both": "both (mean)", "sum_softmax": "both (softmax)"}


def text(numbers: summary.Summary, costs: Sequence[gather.Cost] = (), *, markdown: bool = False) -> str:
    """Students side by side, what the cache takes and keeps, and what the stages cost.

    Args:
        numbers: what `metrics/report.json` holds.
        costs: what each stage took; left out where empty.
        markdown: tables as Markdown.
    """
    form = box.MARKDOWN if markdown else box.SIMPLE_HEAD
    parts = [_lines(_students(numbers, form)), _reading(numbers), _cache(numbers.cache)]
    if numbers.cache.fidelity:
        parts.append(_lines(_fidelity(numbers.cache, form)))
    if costs:
        parts.append(_lines(_costs(costs, form)))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def share(score: schema.Score) -> str:
    """A share in per cent with its standard error; nothing where no image has a label."""
    if score.top1 is None or score.top1_se is None:
        return ""
    return f"{100 * score.top1:.2f} ± {100 * score.top1_se:.2f}"


def knobs(student: schema.Knobs) -> str:
    """Kind of distillation with its settings, for instance `soft, α 0.9, τ 3`."""
    if student.kind == "none":
        return "none"
    parts = [student.kind, f"α {student.alpha:g}"]
    return ", ".join([*parts, f"τ {student.tau:g}"] if student.tau is not None else parts)


def seconds(value_s: float) -> str:
    """A duration for people: 42.1 s, 3 min 40 s, 2 h 05 min."""
    if value_s < 60:
        return f"{value_s:.1f} s"
    minutes, rest = divmod(round(value_s), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _students(numbers: summary.Summary, form: box.Box) -> Table:
    table = Table(box=form)
    table.add_column("top-1 in %")
    table.add_column("distillation")
    for name in predictions.READINGS:
        table.add_column(_HEADS[name], justify="right")
    table.add_column("agrees with teacher", justify="right")
    table.add_column("KL to teacher, nats", justify="right")
    for name in numbers.order:
        student = numbers.students[name]
        cells = [share(student.heads[head]) if head in student.heads else "" for head in predictions.READINGS]
        head = summary.main_head(student)
        table.add_row(name, knobs(student.knobs), *cells, f"{100 * head.agreement:.2f} %", f"{head.kl:.4f}")
    table.add_row("teacher", "", share(numbers.teacher))
    return table


def _reading(numbers: summary.Summary) -> str:
    if not numbers.labelled:
        return f"None of the {numbers.images:,} validation images has a label: there is no accuracy to tell."
    some = f" with a label, of {numbers.images:,}" if numbers.unlabelled else ""
    return (
        f"n = {numbers.labelled:,} validation images{some} of {numbers.classes:,} classes; ± is one standard error. "
        "A difference of less than about two of them may be chance."
    )


def _cache(cache: summary.Cache) -> str:
    kept = "all logits" if cache.kept == "all" else f"the {cache.kept} likeliest classes"
    if cache.coefficients:
        kept += f" and {cache.coefficients} coefficients for the others"
    return (
        f"Cache: {cache.views:,} views of the training images, {kept}: {cache.bytes_a_view:.1f} bytes a view on disk, "
        f"{cache.raw_bytes_a_view:,} before compression (all logits as float32: {cache.whole_bytes_a_view:,})."
    )


def _fidelity(cache: summary.Cache, form: box.Box) -> Table:
    found = reach.by_k(cache.fidelity)
    taus = sorted({tau for row in found.values() for tau in row})
    table = Table(box=form)
    table.add_column("mean TV to the teacher's softmax at")
    for tau in taus:
        table.add_column(f"τ {tau}", justify="right")
    for k, row in found.items():
        table.add_row(f"k {k}", *(f"{row[tau]['tv_mean']:.4f}" if tau in row else "" for tau in taus))
    return table


def _costs(costs: Sequence[gather.Cost], form: box.Box) -> Table:
    table = Table(box=form)
    table.add_column("stage")
    table.add_column("wall time", justify="right")
    table.add_column("of")
    for cost in costs:
        table.add_row(cost.stage, seconds(cost.wall_s), facts(cost))
    return table


def facts(cost: gather.Cost) -> str:
    """What explains a time, for instance `images 76,800 · steps 1,280`."""
    return " · ".join(f"{name} {count:,}" for name, count in cost.facts.items())


def _lines(table: Table) -> str:
    stream = io.StringIO()
    Console(file=stream, width=_WIDTH, color_system=None, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
