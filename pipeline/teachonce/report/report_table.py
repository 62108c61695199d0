"""The report as text: for a terminal, or as Markdown for a README."""

from collections.abc import Collection, Sequence

from rich import box
from rich.table import Table

from teachonce.core import text_tables
from teachonce.evaluate import evaluation_record, predictions
from teachonce.report import convergence, load_metrics, savings, seed_spread, summary
from teachonce.store import tau_range

_WIDTH = 200
"""Wide enough for every column: a table is cut by the terminal rather than by an ellipsis."""
QUARTER = {"label_loss": "label's part", "teacher_loss": "teacher's part"}


def format_summary(
    numbers: summary.Summary, costs: Sequence[load_metrics.StageCost] = (), *, markdown: bool = False
) -> str:
    """Students side by side, those that differ only in their seed as one; what the cache takes, what the stages cost.

    Args:
        numbers: what `summary.json` holds.
        costs: what each stage took; left out where empty.
        markdown: tables as Markdown.
    """
    style = box.MARKDOWN if markdown else box.SIMPLE_HEAD
    parts = [
        text_tables.format_table(_students(numbers, style), _WIDTH),
        _reading(numbers),
        text_tables.format_table(_quarter(numbers, style), _WIDTH),
        _cache(numbers.cache),
    ]
    if numbers.cache.fidelity:
        parts.append(text_tables.format_table(_fidelity(numbers.cache, style), _WIDTH))
    if costs:
        parts.append(text_tables.format_table(_costs(costs, style), _WIDTH))
        parts += describe_savings(savings.compare_wall_times(costs, numbers.order, distilled_students(numbers)))
        parts += elsewhere(costs, numbers)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def format_score(score: evaluation_record.Accuracy) -> str:
    """A share in per cent with its standard error; nothing where no image has a label."""
    if score.top1 is None or score.top1_se is None:
        return ""
    return f"{100 * score.top1:.2f} ± {100 * score.top1_se:.2f}"


def format_spread(numbers: summary.Summary, group: seed_spread.StudentGroup, reading: str) -> str:
    """A share in per cent: mean and standard deviation over seeds; of a single student, with its standard error."""
    spread = group.top1[reading]
    if spread.sd is None:
        return format_score(numbers.students[group.members[0]].heads[reading])
    return _plus_minus(spread, 2, scale=100)


def format_drop(group: seed_spread.StudentGroup, curve: str) -> str:
    """What a part of the loss fell by in the last quarter; empty where there is no such part."""
    spread = group.last_quarter.get(curve)
    return "" if spread is None else _plus_minus(spread, 4)


def _plus_minus(spread: seed_spread.Spread, digits: int, scale: float = 1.0) -> str:
    text = f"{scale * spread.mean:.{digits}f}"
    return text if spread.sd is None else f"{text} ± {scale * spread.sd:.{digits}f}"


def distilled_students(numbers: summary.Summary) -> Collection[str]:
    """Names of the students that learn from the teacher."""
    return [name for name in numbers.order if numbers.students[name].knobs.kind != "none"]


def describe_savings(times: savings.WallTimes | None) -> list[str]:
    """What the cache saved, in words."""
    if times is None or not times.distilled:
        return []
    line = (
        f"Training all students took {format_duration(times.train_s)} and the cache {format_duration(times.cache_s)}, "
        f"together {format_duration(times.cached_s)}. With a live teacher about {format_duration(times.live_s)}: its "
        f"answers to {times.live_views:,} views instead of {times.cached_views:,}, each at what a view took in the "
        "cache stage, rendering included."
    )
    return [line]


def elsewhere(costs: Sequence[load_metrics.StageCost], numbers: summary.Summary) -> list[str]:
    """What the table of costs leaves out, in words."""
    absent = load_metrics.ran_elsewhere(costs, numbers.order)
    return [f"Ran elsewhere, and what they cost was not fetched: {', '.join(absent)}."] if absent else []


def format_knobs(student: evaluation_record.Knobs) -> str:
    """Kind of distillation with its settings, for instance `soft, α 0.9, τ 3`."""
    if student.kind == "none":
        return "none"
    parts = [student.kind, f"α {student.alpha:g}"]
    return ", ".join([*parts, f"τ {student.tau:g}"] if student.tau is not None else parts)


def format_duration(value_s: float) -> str:
    """A duration for people: 42.1 s, 3 min 40 s, 2 h 05 min."""
    if value_s < 60:
        return f"{value_s:.1f} s"
    minutes, rest = divmod(round(value_s), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _students(numbers: summary.Summary, style: box.Box) -> Table:
    table = Table(box=style)
    table.add_column("top-1 in %")
    table.add_column("distillation")
    table.add_column("seeds", justify="right")
    for title in predictions.HEAD_TITLES.values():
        table.add_column(title, justify="right")
    table.add_column("agrees with teacher, %", justify="right")
    table.add_column("KL to teacher, nats", justify="right")
    for group in numbers.groups:
        cells = [format_spread(numbers, group, head) if head in group.top1 else "" for head in predictions.HEADS]
        settings = format_knobs(numbers.students[group.members[0]].knobs)
        agreement, kl = _plus_minus(group.agreement, 2, scale=100), _plus_minus(group.kl, 4)
        table.add_row(group.name, settings, f"{len(group.members)}", *cells, agreement, kl)
    table.add_row("teacher", "", "", format_score(numbers.teacher))
    return table


def _reading(numbers: summary.Summary) -> str:
    if not numbers.labelled:
        return f"None of the {numbers.images:,} validation images has a label: there is no accuracy to tell."
    subset = f" with a label, of {numbers.images:,}" if numbers.unlabelled else ""
    return (
        f"n = {numbers.labelled:,} validation images{subset} of {numbers.classes:,} classes. "
        f"{explain_uncertainty(numbers)} A difference of less than about two of them may be chance."
    )


def explain_uncertainty(numbers: summary.Summary) -> str:
    """What stands behind ± in this table."""
    error = "one standard error of the images"
    if all(len(group.members) == 1 for group in numbers.groups):
        return f"± is {error}."
    return f"± is the sample standard deviation over seeds; where there is one (and of the teacher), {error}."


def _quarter(numbers: summary.Summary, style: box.Box) -> Table:
    table = Table(box=style)
    table.add_column("loss still fell in the last quarter by, nats")
    for title in QUARTER.values():
        table.add_column(title, justify="right")
    for group in numbers.groups:
        table.add_row(group.name, *(format_drop(group, curve) for curve in convergence.CURVES))
    return table


def _cache(cache: summary.CacheFacts) -> str:
    row = "all logits" if cache.kept == "all" else f"the {cache.kept} likeliest classes"
    if cache.coefficients:
        row += f" and {cache.coefficients} coefficients for the others"
    return (
        f"Cache: {cache.views:,} views of the training images, {row}: {cache.bytes_a_view:.1f} bytes a view on disk, "
        f"{cache.raw_bytes_a_view:,} before compression (all logits as float32: {cache.whole_bytes_a_view:,})."
    )


def _fidelity(cache: summary.CacheFacts, style: box.Box) -> Table:
    distances_by_k = tau_range.distances_by_k(cache.fidelity)
    taus = sorted({tau for row in distances_by_k.values() for tau in row})
    table = Table(box=style)
    table.add_column("mean TV to the teacher's softmax at")
    for tau in taus:
        table.add_column(f"τ {tau}", justify="right")
    for k, row in distances_by_k.items():
        table.add_row(f"k {k}", *(f"{row[tau]['tv_mean']:.4f}" if tau in row else "" for tau in taus))
    return table


def _costs(costs: Sequence[load_metrics.StageCost], style: box.Box) -> Table:
    table = Table(box=style)
    table.add_column("stage")
    table.add_column("wall time", justify="right")
    table.add_column("of")
    for cost in costs:
        table.add_row(cost.stage, format_duration(cost.wall_s), format_facts(cost))
    return table


def format_facts(cost: load_metrics.StageCost) -> str:
    """What explains a time, for instance `images 76,800 · steps 1,280`."""
    return " · ".join(f"{name} {count:,}" for name, count in cost.facts.items())
