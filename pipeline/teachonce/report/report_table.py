"""The report as text: for a terminal of 80 columns, or as Markdown for a README."""

import textwrap
from collections.abc import Collection, Sequence

from rich import box
from rich.table import Table

from teachonce.core import text_tables
from teachonce.evaluate import evaluation_record, predictions
from teachonce.report import convergence, load_metrics, quantities, savings, seed_spread, summary
from teachonce.store import tau_range

_WIDTH = 80
_MARKDOWN_WIDTH = 200
"""A wrapped cell is not one of Markdown's."""
_SUM = "sum_softmax"
_SHORT_TITLES = {"class": "class head", "dist": "dist. head", "both": "both (mean)"}
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
    parts: list[Table | str] = [
        *numbers.headline,
        _students(numbers, style),
        _reading(numbers),
        _teaching(numbers, style),
        _quarter(numbers, style),
        _cache(numbers.cache),
    ]
    if numbers.cache.fidelity:
        parts.append(_fidelity(numbers.cache, style))
    if costs:
        parts.append(_costs(costs, style))
        parts += describe_savings(savings.compare_wall_times(costs, numbers.order, distilled_students(numbers)))
        parts += elsewhere(costs, numbers)
    width = _MARKDOWN_WIDTH if markdown else _WIDTH
    return "\n\n".join(_format_part(part, width).strip("\n") for part in parts) + "\n"


def format_headline(numbers: summary.Summary) -> str:
    """The result in a few lines."""
    return "\n".join(_format_part(sentence, _WIDTH) for sentence in numbers.headline)


def _format_part(part: Table | str, width: int) -> str:
    if isinstance(part, Table):
        return text_tables.format_table(part, width)
    # A number stays with its per cent sign: no line breaks at a space without a break.
    kept = part.replace(" %", "\u00a0%")
    return textwrap.fill(kept, width, break_long_words=False, break_on_hyphens=False).replace("\u00a0%", " %")


def _table(style: box.Box) -> Table:
    # Collapsed: five columns of scores would not fit 80 letters with a space to both sides of each.
    return Table(box=style, collapse_padding=style is not box.MARKDOWN)


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
    train, cache, cached, live = map(
        quantities.format_duration, (times.train_s, times.cache_s, times.cached_s, times.live_s)
    )
    line = (
        f"Training all students took {train} and the cache {cache}, together {cached}. With a live teacher about "
        f"{live}: its answers to {times.live_views:,} views instead of {times.cached_views:,}, each at what a view "
        "took in the cache stage, rendering included."
    )
    return [line]


def elsewhere(costs: Sequence[load_metrics.StageCost], numbers: summary.Summary) -> list[str]:
    """What the table of costs leaves out, in words."""
    absent = load_metrics.ran_elsewhere(costs, numbers.order)
    return [f"Ran elsewhere, and what they cost was not fetched: {', '.join(absent)}."] if absent else []


def format_knobs(student: evaluation_record.Knobs) -> str:
    """Kind of distillation with its settings: soft, alpha 0.9, tau 3."""
    if student.kind == "none":
        return "none"
    parts = [student.kind, f"alpha {student.alpha:g}"]
    return ", ".join([*parts, f"tau {student.tau:g}"] if student.tau is not None else parts)


def _students(numbers: summary.Summary, style: box.Box) -> Table:
    """Accuracy of each head; without labels, what the students are and no more."""
    table = _table(style)
    heads = main_heads(numbers)
    table.add_column("top-1 in %" if heads else "student")
    table.add_column("distillation")
    for head in heads:
        table.add_column(_SHORT_TITLES[head], justify="right", no_wrap=True)
    for group in numbers.groups:
        settings = format_knobs(numbers.students[group.members[0]].knobs)
        table.add_row(group.name, settings, *_scores(numbers, group, heads))
    if heads:
        table.add_row("teacher", "", format_score(numbers.teacher))
    return table


def shown_heads(numbers: summary.Summary) -> list[str]:
    """Ways to read an answer that some student has and that can be right or wrong, in the order of tables."""
    return [head for head in predictions.HEADS if any(head in group.top1 for group in numbers.groups)]


def main_heads(numbers: summary.Summary) -> list[str]:
    """The same without the DeiT paper's way to add both heads up, which hardly ever differs from their mean."""
    return [head for head in shown_heads(numbers) if head != _SUM]


def _scores(numbers: summary.Summary, group: seed_spread.StudentGroup, heads: Collection[str]) -> list[str]:
    return [format_spread(numbers, group, head) if head in group.top1 else "" for head in heads]


def _teaching(numbers: summary.Summary, style: box.Box) -> Table:
    """How near the students came to their teacher, and the answer that the DeiT paper gives."""
    table = _table(style)
    heads = [head for head in shown_heads(numbers) if head == _SUM]
    table.add_column("student")
    table.add_column("seeds", justify="right")
    for head in heads:
        table.add_column(f"{predictions.HEAD_TITLES[head]}, %", justify="right", no_wrap=True)
    table.add_column("agrees with teacher, %", justify="right")
    table.add_column("KL to teacher, nats", justify="right")
    for group in numbers.groups:
        agreement, kl = _plus_minus(group.agreement, 2, scale=100), _plus_minus(group.kl, 4)
        table.add_row(group.name, f"{len(group.members)}", *_scores(numbers, group, heads), agreement, kl)
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
    table = _table(style)
    table.add_column("loss still fell in the last quarter by, nats")
    curves = shown_curves(numbers)
    for curve in curves:
        table.add_column(QUARTER[curve], justify="right", no_wrap=True)
    for group in numbers.groups:
        table.add_row(group.name, *(format_drop(group, curve) for curve in curves))
    return table


def shown_curves(numbers: summary.Summary) -> list[str]:
    """Parts of the loss that some student has."""
    return [curve for curve in convergence.CURVES if any(curve in group.last_quarter for group in numbers.groups)]


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
    table = _table(style)
    table.add_column("mean TV to the teacher's softmax at")
    for tau in taus:
        table.add_column(f"tau {tau}", justify="right", no_wrap=True)
    for k, row in distances_by_k.items():
        table.add_row(f"k {k}", *(f"{row[tau]['tv_mean']:.4f}" if tau in row else "" for tau in taus))
    return table


def _costs(costs: Sequence[load_metrics.StageCost], style: box.Box) -> Table:
    table = _table(style)
    table.add_column("stage")
    table.add_column("wall time", justify="right", no_wrap=True)
    table.add_column("counts")
    for cost in costs:
        table.add_row(cost.stage, quantities.format_duration(cost.wall_s), format_facts(cost))
    return table


def format_facts(cost: load_metrics.StageCost) -> str:
    """What explains a time, for instance `images 76,800 · steps 1,280`; what is zero explains nothing."""
    return " · ".join(f"{name} {count:,}" for name, count in cost.facts.items() if count)
