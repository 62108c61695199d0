"""A price as text for a terminal."""

from collections.abc import Iterator

from rich import box
from rich.table import Table
from tqdm import tqdm

from teachonce.core import text_tables
from teachonce.tools.estimate import measure, price

_WIDTH = 160
_NOT_COUNTED = (
    "Not counted: prepare, the teacher's training, the fit of a tail, evaluate, report, and the start of processes;\n"
    "of the cache, keys and records. Weights and rows were made up for the measurement; neither changes a time."
)


def format_estimate(estimate: price.Estimate) -> str:
    """What was measured, what a run takes, and what the cache saves."""
    return "\n\n".join(part.strip("\n") for part in _parts(estimate)) + "\n"


def _parts(estimate: price.Estimate) -> Iterator[str]:
    yield (
        f"{estimate.train:,} training images ({estimate.here:,} here) under {estimate.aug_seeds:,} aug seeds, "
        f"{estimate.val:,} validation images; on {estimate.device}"
    )
    yield text_tables.format_table(_measured(estimate), _WIDTH)
    yield text_tables.format_table(_costs(estimate), _WIDTH)
    yield "\n".join(_saved(estimate))
    yield text_tables.format_table(_sizes(estimate), _WIDTH)
    yield (
        f"Checkpoints take up to {_size(estimate.checkpoint_bytes)} of the scratch folder: two of each student, "
        "and the one that is being written."
    )
    yield "\n".join([*estimate.notes, _NOT_COUNTED])


def _measured(estimate: price.Estimate) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("measured, views/s")
    for name in ("median", "slowest", "fastest", "rounds", "views a round"):
        table.add_column(name, justify="right")
    rates = {"cache stage, all of it": estimate.cache_stage, "teacher's forward pass alone": estimate.forward}
    rates |= {f"train {_names(student)}, loader included": student.rate for student in estimate.students}
    for name, rate in rates.items():
        table.add_row(name, *_rate(rate))
    return table


def _rate(rate: measure.Throughput) -> tuple[str, ...]:
    speeds = (_number(value) for value in (rate.views_s, rate.slowest, rate.fastest))
    return (*speeds, f"{rate.rounds:,}", f"{rate.views:,}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _costs(estimate: price.Estimate) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("a whole run")
    for name in ("views", "steps", "a step", "time", "more with a live teacher"):
        table.add_column(name, justify="right")
    table.add_row("cache stage", f"{estimate.cache_views:,}", "", "", _time(estimate.cache_hours), "")
    for student in estimate.students:
        live = _time(student.live_hours) if student.live_hours else ""
        step_s = student.hours * 3600 / student.steps
        title = f"train {_names(student)}" + (", each" if len(student.names) > 1 else "")
        table.add_row(title, f"{student.views:,}", f"{student.steps:,}", f"{step_s:.3g} s", _time(student.hours), live)
    table.add_row("together", "", "", "", _time(estimate.hours), "")
    return table


def _saved(estimate: price.Estimate) -> Iterator[str]:
    if estimate.pays_after is None:
        yield "No student asks the teacher: the cache stage pays for nothing."
        return
    saved = estimate.live_hours - estimate.hours
    yield (
        f"With a live teacher in place of the cache all students would take {_time(estimate.live_hours)}: "
        f"{_time(abs(saved))} {'more' if saved >= 0 else 'less'}. {_paid(estimate.pays_after)}"
    )
    yield "A live teacher is priced at its forward passes alone: the view is there already, if the sizes are the same."


def _paid(students: float) -> str:
    if students < 1:
        return f"The cache has paid for itself after {_number(100 * students)} % of the first distilled student."
    return f"The cache has paid for itself after {_number(students)} distilled students."


def _sizes(estimate: price.Estimate) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("cache, both stores, before compression")
    table.add_column("bytes a view", justify="right")
    for seeds in estimate.sizes[0].bytes:
        table.add_column(f"{seeds:,} aug seeds", justify="right")
    for size in estimate.sizes:
        title = size.form + (", configured" if size.configured else "")
        table.add_row(title, f"{size.bytes_a_view:,}", *(_size(count) for count in size.bytes.values()))
    table.add_row("and a remembered view a tar", "", *(_size(estimate.canary_bytes) for _ in estimate.sizes[0].bytes))
    return table


def _size(count: int) -> str:
    return str(tqdm.format_sizeof(count, "B"))


def _names(student: price.StudentPrice) -> str:
    return student.names[0] if len(student.names) == 1 else f"{student.names[0]} and {len(student.names) - 1} like it"


def _time(hours: float) -> str:
    """For people: 42 s, 12 min, 3.5 h."""
    for unit, factor in (("h", 1), ("min", 60)):
        if hours * factor >= 1:
            return f"{_number(hours * factor)} {unit}"
    return f"{_number(hours * 3600)} s"
