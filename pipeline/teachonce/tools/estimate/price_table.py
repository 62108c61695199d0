"""A price as text for a terminal."""

import io
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from teachonce.tools.estimate import measure, price

_WIDTH = 160
_NOT_COUNTED = (
    "Not counted: prepare, the teacher's training, the fit of a tail, evaluate, report, and the start of processes;\n"
    "of the cache, keys and records. Weights and rows were made up for the measurement; neither changes a time."
)


def format_estimate(found: price.Estimate) -> str:
    """What was measured, what a run takes, and what the cache saves."""
    return "\n\n".join(part.strip("\n") for part in _parts(found)) + "\n"


def _parts(found: price.Estimate) -> Iterator[str]:
    yield (
        f"{found.train:,} training images ({found.here:,} here) under {found.aug_seeds:,} aug seeds, {found.val:,} "
        f"validation images; on {found.device}"
    )
    yield _lines(_measured(found))
    yield _lines(_costs(found))
    yield "\n".join(_saved(found))
    yield _lines(_sizes(found))
    yield (
        f"Checkpoints take up to {_size(found.checkpoint_bytes)} of the scratch folder: two of each student, "
        "and the one that is being written."
    )
    yield "\n".join([*found.notes, _NOT_COUNTED])


def _measured(found: price.Estimate) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("measured, views/s")
    for name in ("median", "slowest", "fastest", "rounds", "views a round"):
        table.add_column(name, justify="right")
    rates = {"cache stage, all of it": found.cache_stage, "teacher's forward pass alone": found.forward}
    rates |= {f"train {_names(one)}, loader included": one.rate for one in found.students}
    for name, rate in rates.items():
        table.add_row(name, *_rate(rate))
    return table


def _rate(rate: measure.Throughput) -> tuple[str, ...]:
    speeds = (_number(value) for value in (rate.views_s, rate.slowest, rate.fastest))
    return (*speeds, f"{rate.rounds:,}", f"{rate.views:,}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _costs(found: price.Estimate) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("a whole run")
    for name in ("views", "steps", "a step", "time", "more with a live teacher"):
        table.add_column(name, justify="right")
    table.add_row("cache stage", f"{found.cache_views:,}", "", "", _time(found.cache_hours), "")
    for one in found.students:
        live = _time(one.live_hours) if one.live_hours else ""
        step_s = one.hours * 3600 / one.steps
        each = f"train {_names(one)}" + (", each" if len(one.names) > 1 else "")
        table.add_row(each, f"{one.views:,}", f"{one.steps:,}", f"{step_s:.3g} s", _time(one.hours), live)
    table.add_row("together", "", "", "", _time(found.hours), "")
    return table


def _saved(found: price.Estimate) -> Iterator[str]:
    if found.pays_after is None:
        yield "No student asks the teacher: the cache stage pays for nothing."
        return
    saved = found.live_hours - found.hours
    yield (
        f"With a live teacher in place of the cache all students would take {_time(found.live_hours)}: "
        f"{_time(abs(saved))} {'more' if saved >= 0 else 'less'}. {_paid(found.pays_after)}"
    )
    yield "A live teacher is priced at its forward passes alone: the view is there already, if the sizes are the same."


def _paid(students: float) -> str:
    if students < 1:
        return f"The cache has paid for itself after {_number(100 * students)} % of the first distilled student."
    return f"The cache has paid for itself after {_number(students)} distilled students."


def _sizes(found: price.Estimate) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("cache, both stores, before compression")
    table.add_column("bytes a view", justify="right")
    for seeds in found.sizes[0].bytes:
        table.add_column(f"{seeds:,} aug seeds", justify="right")
    for size in found.sizes:
        form = size.form + (", configured" if size.configured else "")
        table.add_row(form, f"{size.bytes_a_view:,}", *(_size(count) for count in size.bytes.values()))
    table.add_row("and a remembered view a tar", "", *(_size(found.canary_bytes) for _ in found.sizes[0].bytes))
    return table


def _size(count: int) -> str:
    return str(tqdm.format_sizeof(count, "B"))


def _names(one: price.StudentPrice) -> str:
    return one.names[0] if len(one.names) == 1 else f"{one.names[0]} and {len(one.names) - 1} like it"


def _time(hours: float) -> str:
    """For people: 42 s, 12 min, 3.5 h."""
    for unit, factor in (("h", 1), ("min", 60)):
        if hours * factor >= 1:
            return f"{_number(hours * factor)} {unit}"
    return f"{_number(hours * 3600)} s"


def _lines(table: Table) -> str:
    stream = io.StringIO()
    # No markup: names are anyone's, and may look like it.
    console = Console(file=stream, width=_WIDTH, color_system=None, legacy_windows=False, markup=False, emoji=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
