"""What pydantic refuses of plain data, a line for each problem.

Unknown keys come first: what is missing is often there under another name.
"""

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pydantic
from pydantic_core import ErrorDetails

from teachonce.core import errors, spelling

Place = tuple[str, ...]
"""Keys and positions from the root of the data."""


@dataclass(frozen=True, slots=True)
class _Problem:
    """One thing that is refused."""

    kind: str
    """unknown, missing or refused."""
    place: Place
    """Of the value."""
    reasons: tuple[str, ...] = ()
    """Why it is refused; of a union, one of each form."""
    value: object = None
    """That is refused."""
    words: tuple[str, ...] = ()
    """That would be accepted in its place."""


def lines(
    error: pydantic.ValidationError, data: object, model: type[pydantic.BaseModel], where: str, key: str = ""
) -> tuple[str, ...]:
    """Every problem as a line.

    Args:
        error: of the validation.
        data: that was validated.
        model: as which.
        where: its origin.
        key: of the data within its origin.
    """
    found: dict[tuple[str, Place], _Problem] = {}
    for details in error.errors(include_url=False):
        problem = _problem(details, data)
        same = found.get((problem.kind, problem.place))
        if same is not None:
            words = (*same.words, *problem.words)
            problem = replace(same, reasons=(*same.reasons, *problem.reasons), words=words)
        found[problem.kind, problem.place] = problem
    problems = [problem for problem in found.values() if not _is_explained(problem, found.values())]
    unknown = [problem for problem in problems if problem.kind == "unknown"]
    told, meant = [], set()
    for problem in unknown:
        name = _meant(problem, problems, data, model)
        meant.add((*problem.place[:-1], name))
        cure = f"Did you mean {name}?" if name else "Remove it or correct its spelling"
        told.append(f"{_full(key, problem.place)} is not a known key. {cure}")
    rest = [problem for problem in problems if problem.kind != "unknown" and problem.place not in meant]
    return tuple(f"{where}: {line}" for line in (*told, *(_line(problem, key) for problem in rest)))


def _problem(details: ErrorDetails, data: object) -> _Problem:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    place = _place(details["loc"], data, last=kind == "missing")
    if kind == "extra_forbidden":
        return _Problem("unknown", place)
    if kind == "missing":
        return _Problem("missing", place)
    if kind == "union_tag_not_found":
        return _without_tag(place, value, str(context["discriminator"]).strip("'"))
    if kind == "union_tag_invalid":
        place, value = (*place, str(context["discriminator"]).strip("'")), context["tag"]
        reason = f"input should be {context['expected_tags']}"
        return _Problem("refused", place, (reason,), value, _words(context["expected_tags"]))
    reason = details["msg"].removeprefix("Value error, ")
    words = _words(context["expected"]) if kind == "literal_error" else ()
    return _Problem("refused", place, (f"{reason[0].lower()}{reason[1:]}",), value, words)


def _without_tag(place: Place, value: object, tag: str) -> _Problem:
    """What selects the form of a union is missing, or there under a misspelt name."""
    name = spelling.nearest(tag, value) if isinstance(value, dict) else None
    return _Problem("unknown", (*place, name), words=(tag,)) if name else _Problem("missing", (*place, tag))


def _words(expected: str) -> tuple[str, ...]:
    """The choices in pydantic's `'soft', 'hard' or 'none'`, which it gives in no other form."""
    return tuple(re.findall("'([^']*)'", expected))


def _place(location: Sequence[str | int], data: object, *, last: bool) -> Place:
    """The part of pydantic's location that is in the data: not its names for the forms of a union."""
    place: list[str] = []
    for position, part in enumerate(location):
        is_last = last and position == len(location) - 1
        if is_last or (isinstance(data, dict) and part in data):
            data = data.get(part) if isinstance(data, dict) else None
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        place.append(str(part))
    return tuple(place)


def _is_explained(problem: _Problem, others: typing.Iterable[_Problem]) -> bool:
    """Whether it only says that a map is not another form of a union, when what is wrong in the map is told."""
    depth = len(problem.place)
    inside = any(len(other.place) > depth and other.place[:depth] == problem.place for other in others)
    return problem.kind == "refused" and isinstance(problem.value, dict | list) and inside


def _meant(
    problem: _Problem, problems: Sequence[_Problem], data: object, model: type[pydantic.BaseModel]
) -> str | None:
    """The key that an unknown one stands for: one of those that are not given, those that are missing first."""
    if problem.words:
        return problem.words[0]
    parent, name = problem.place[:-1], problem.place[-1]
    missing = [other.place[-1] for other in problems if other.kind == "missing" and other.place[:-1] == parent]
    models: list[type[pydantic.BaseModel]] = [model]
    given = data
    for part in parent:
        models = [inner for outer in models for inner in _below(outer, part)]
        given = _inside(given, part)
    keys = given if isinstance(given, dict) else {}
    fields = [field for form in _chosen(models, keys) for field in form.model_fields]
    meant = spelling.nearest(name, missing) or spelling.nearest(name, fields)
    if meant in keys:
        return None
    return meant or (missing[0] if len(missing) == 1 else None)


def _inside(data: object, part: str) -> object:
    if isinstance(data, list | tuple):
        return data[int(part)]
    return data.get(part) if isinstance(data, dict) else None


def _below(model: type[pydantic.BaseModel], part: str) -> list[type[pydantic.BaseModel]]:
    field = model.model_fields.get(part)
    # Within a list or a map, a position or a key stands for the same forms.
    return list(_models(field.annotation)) if field else [model]


def _models(annotation: object) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _chosen(models: list[type[pydantic.BaseModel]], given: Mapping[str, object]) -> list[type[pydantic.BaseModel]]:
    """Of the forms of a union those whose `kind` is the one given."""
    kind = given.get("kind")
    fields = ((model, model.model_fields.get("kind")) for model in models)
    fitting = [model for model, field in fields if field and kind in typing.get_args(field.annotation)]
    return fitting or models


def _line(problem: _Problem, key: str) -> str:
    name = _full(key, problem.place)
    if problem.kind == "missing":
        return f"{name} is missing. Add it"
    first, *others = dict.fromkeys(problem.reasons)
    reasons = " or ".join((first, *(reason.removeprefix("input should be ") for reason in others)))
    near = spelling.question(problem.value, problem.words) if isinstance(problem.value, str) else ""
    return f"{name} is refused: {reasons}. Got {errors.shown(problem.value)}{near and f'.{near}'}"


def _full(key: str, place: Place) -> str:
    return errors.cut(".".join((*filter(None, [key]), *place))) or "the file"
