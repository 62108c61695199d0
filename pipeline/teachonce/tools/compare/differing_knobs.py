"""Which knobs tell some students apart: what is the same for all of them is left out."""

from collections.abc import Mapping, Sequence

from teachonce.tools.compare import locked_stages

Knobs = Mapping[locked_stages.Knob, locked_stages.Scalar]
SEED = locked_stages.Knob("", "seed")
_ABSENT = "–"


def find_differing(students: Sequence[Knobs]) -> list[locked_stages.Knob]:
    """Knobs but the seed that differ, those of params.yaml first, in its order.

    Inputs that differ only because a knob does, as rows of another teacher, are told by that knob alone.
    """
    candidates = [knob for knob in dict.fromkeys(knob for knobs in students for knob in knobs) if knob != SEED]
    differing = [knob for knob in candidates if len(_values(knob, students)) > 1]
    causes = [knob for knob in differing if knob.file != locked_stages.INPUT]
    inputs = [knob for knob in differing if knob.file == locked_stages.INPUT and not _follows(knob, causes, students)]
    return sorted(causes, key=lambda knob: (knob.file != "", knob == locked_stages.CODE)) + inputs


def name_columns(knobs: Sequence[locked_stages.Knob]) -> dict[locked_stages.Knob, str]:
    """What each knob is called: its key, with its file where two have the same key."""
    keys = [knob.key for knob in knobs]
    return {knob: knob.key if keys.count(knob.key) == 1 else f"{knob.file}:{knob.key}".lstrip(":") for knob in knobs}


def format_value(value: locked_stages.Scalar) -> str:
    """A value in a table."""
    if value is None:
        return _ABSENT
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(knob: locked_stages.Knob, students: Sequence[Knobs]) -> set[locked_stages.Scalar]:
    # Students of another file have none of its keys; that they differ is told by the file's name.
    return {
        knobs.get(knob)
        for knobs in students
        if knob.file in {"", locked_stages.INPUT} or any(other.file == knob.file for other in knobs)
    }


def _follows(knob: locked_stages.Knob, causes: Sequence[locked_stages.Knob], students: Sequence[Knobs]) -> bool:
    """Whether the values of `causes` leave one value of `knob`."""
    pairs = {(tuple(knobs.get(cause) for cause in causes), knobs.get(knob)) for knobs in students}
    return len(pairs) == len({values for values, _ in pairs})
