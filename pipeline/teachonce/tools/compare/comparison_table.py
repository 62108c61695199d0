"""A comparison as text for a terminal."""

from rich import box
from rich.table import Table

from teachonce.core import terminal, text_tables
from teachonce.tools.compare import comparison, differing_knobs

_WIDTH = 200
_SHOWN = 8
"""Most pairs that are listed; the page has all."""
MEASURES = {"top1": "top-1 in %", "agreement": "agrees with teacher, %"}


def format_comparison(result: comparison.Comparison) -> str:
    """The table of settings, what their differences are worth, and what is not here."""
    parts = [
        text_tables.format_table(_settings(result), _WIDTH).strip("\n"),
        "\n".join(explain(result)),
        "\n".join(_pairs(result)),
        "\n".join(map(terminal.printable, result.notes)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def explain(result: comparison.Comparison) -> list[str]:
    """How the table is to be read, a sentence or two a line."""
    lines = [f"n = {result.images:,} validation images. {_explain_spread(result)}"]
    fewest = min(len(setting.members) for setting in result.settings)
    if fewest < comparison.SEEDS and len(result.settings) > 1:
        whose = "Each setting has one seed" if _is_single(result) else "Some settings have fewer than three seeds"
        lines += [
            f"{whose}: what differs there are trained students on the same images (McNemar), not settings.",
            "Another seed trains another student; settings need three seeds or more:",
            "  dvc exp run --queue -S 'students.NAME.seed=0,1,2'",
        ]
    return lines


def format_share(setting: comparison.Setting) -> str:
    """Per cent, with what `explain` says of ±."""
    error = setting.image_se if setting.sd is None else setting.sd
    return f"{100 * setting.mean:.2f} ± {100 * error:.2f}"


def format_gap(difference: comparison.Difference) -> str:
    """A difference in points with its standard error."""
    return f"{100 * difference.difference:+z.2f} ± {100 * difference.se:.2f}".replace("-", "−")


def label(result: comparison.Comparison, setting: comparison.Setting) -> str:
    """A setting's name with what tells it from others of that name: `soft, tau 3`."""
    namesakes = [other.knobs for other in result.settings if other.name == setting.name]
    differing = [name for name in setting.knobs if len({knobs[name] for knobs in namesakes}) > 1]
    knobs = [f"{name} {differing_knobs.format_value(setting.knobs[name])}" for name in differing]
    return ", ".join([setting.name, *knobs])


def train_seconds(setting: comparison.Setting) -> float | None:
    """Mean wall time of its students' training; None where no cost is here."""
    times = [member.train_s for member in setting.members if member.train_s is not None]
    return sum(times) / len(times) if times else None


def format_origin(setting: comparison.Setting) -> str:
    """Where its students come from."""
    names = list(dict.fromkeys(member.revision for member in setting.members))
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _settings(result: comparison.Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("student")
    for name in result.settings[0].knobs:
        table.add_column(name, justify="right")
    for title in ("seeds", MEASURES[result.measure], "behind the best, points", "passes", "training, min"):
        table.add_column(title, justify="right")
    table.add_column("revision")
    to_best = {difference.worse: difference for difference in result.differences if difference.better == 0}
    for position, setting in enumerate(result.settings):
        difference, wall_s = to_best.get(position), train_seconds(setting)
        table.add_row(
            setting.name,
            *map(differing_knobs.format_value, setting.knobs.values()),
            str(len(setting.members)),
            format_share(setting),
            format_gap(difference).removeprefix("+") if difference else "",
            ("yes" if difference.passes else "no") if difference else "",
            "" if wall_s is None else f"{wall_s / 60:.1f}",
            format_origin(setting),
        )
    if result.teacher is not None:
        table.add_row("teacher", *[""] * (len(result.settings[0].knobs) + 1), f"{100 * result.teacher:.2f}")
    return table


def _explain_spread(result: comparison.Comparison) -> str:
    if _is_single(result):
        return "± is one standard error of the images."
    return "± is the standard deviation over seeds; where there is one seed, one standard error of the images."


def _is_single(result: comparison.Comparison) -> bool:
    return all(len(setting.members) == 1 for setting in result.settings)


def summarise_pairs(result: comparison.Comparison) -> str:
    """How many pairs pass, and how many would by chance."""
    count = len(result.differences)
    if not count:
        return "No two of them answered the same images here, so that no difference can be judged."
    passing = sum(difference.passes for difference in result.differences)
    chance = " By chance alone one in twenty would, of three seeds each one in nine." if count >= 10 else ""
    return f"{passing} of {count} pairs differ by more than two standard errors.{chance}"


def _pairs(result: comparison.Comparison) -> list[str]:
    if len(result.settings) == 1:
        return ["One setting: there is nothing to compare it with yet."]
    passing = [difference for difference in result.differences if difference.passes]
    lines = [f"  {describe_pair(result, difference)}" for difference in passing[:_SHOWN]]
    more = [f"  and {len(passing) - _SHOWN} more, on the page"] if len(passing) > _SHOWN else []
    return [summarise_pairs(result), *lines, *more]


def describe_pair(result: comparison.Comparison, difference: comparison.Difference) -> str:
    """A pair in a line, with how sure the difference is."""
    better, worse = (label(result, result.settings[index]) for index in (difference.better, difference.worse))
    line = f"{better} against {worse}: {format_gap(difference)} points"
    if difference.of == "settings":
        return f"{line}, over seeds"
    if difference.p is None:
        return f"{line}, over images"
    return f"{line}; {difference.only_better} images against {difference.only_worse}, p = {difference.p:.2g}"
