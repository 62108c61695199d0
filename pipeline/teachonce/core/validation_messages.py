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
_MAX_LINES = 100


@dataclass(frozen=True, slots=True)
class _Problem:
    """One value that is refused, or one key."""

    kind: str
    """One of `unknown`, `missing` and `refused`."""
    place: Place
    """Where the value is, from the root of the data."""
    reasons: tuple[str, ...] = ()
    """Why it is refused; of a union, one of each form."""
    value: object = None
    """The value that is refused."""
    words: tuple[str, ...] = ()
    """What would be accepted in its place."""


@dataclass(frozen=True, slots=True)
class Problems:
    """All that is wrong with some data, in lines for a person."""

    problems: tuple[errors.ConfigError, ...]
    """The first; where there are more, a last one says how many."""
    count: int
    """How many problems there are, listed or not."""


def explain(
    error: pydantic.ValidationError, data: object, model: type[pydantic.BaseModel], where: str, key: str = ""
) -> Problems:
    """What pydantic refuses, in the words of the data.

    The time that it takes grows as the data do: whoever sends a file chooses how much in it is wrong.

    Args:
        error: what pydantic raised.
        data: what was validated.
        model: the class it was validated as.
        where: origin of the data, which each line begins with.
        key: key of the data within its origin; empty for all of it.
    """
    # Only so many lines are made, but all problems counted: a file with a million of them must not take minutes.
    problems = _drop_redundant(_merge_by_place(error, data))
    unknown = [problem for problem in problems if problem.kind == "unknown"]
    names = _missing_names(problems)
    texts, explained = [], set()
    for problem in unknown[:_MAX_LINES]:
        name = _likely_key(problem, names.get(problem.place[:-1], ()), data, model)
        explained.add((*problem.place[:-1], name))
        cure = f"Did you mean {name}?" if name else "Remove it or correct its spelling"
        texts.append((f"{_full_key(key, problem.place)} is not a known key", cure))
    # A key under a wrong name is one problem, not two: what it stands for is not missing as well.
    rest = [problem for problem in problems if problem.kind != "unknown" and problem.place not in explained]
    texts += [_explanation(problem, key) for problem in rest[: _MAX_LINES - len(texts)]]
    count = len(unknown) + len(rest)
    if count > len(texts):
        texts.append((f"{count - len(texts):,} more problems are not listed", "Correct these first"))
    return Problems(tuple(errors.ConfigError(where, what, cure) for what, cure in texts), count)


def _merge_by_place(error: pydantic.ValidationError, data: object) -> list[_Problem]:
    """The problems in pydantic's order, those of one value as one."""
    by_place: dict[tuple[str, Place], _Problem] = {}
    for details in error.errors(include_url=False):
        problem = _problem(details, data)
        earlier = by_place.get((problem.kind, problem.place))
        if earlier is not None:
            words = (*earlier.words, *problem.words)
            problem = replace(earlier, reasons=(*earlier.reasons, *problem.reasons), words=words)
        # A union that fits in no form has an error for each form: to a person these are one.
        by_place[problem.kind, problem.place] = problem
    return list(by_place.values())


def _drop_redundant(problems: Sequence[_Problem]) -> list[_Problem]:
    """Without those that only say that a map is not another form of a union, when what is wrong in the map is told."""
    parents = {problem.place[:depth] for problem in problems for depth in range(len(problem.place))}
    return [
        problem
        for problem in problems
        if not (problem.kind == "refused" and isinstance(problem.value, dict | list) and problem.place in parents)
    ]


def _missing_names(problems: Sequence[_Problem]) -> dict[Place, list[str]]:
    """The keys that are missing, by the map that they are missing in."""
    names: dict[Place, list[str]] = {}
    for problem in problems:
        if problem.kind == "missing":
            names.setdefault(problem.place[:-1], []).append(problem.place[-1])
    return names


def _problem(details: ErrorDetails, data: object) -> _Problem:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    place = _data_place(details["loc"], data, last=kind == "missing")
    if kind == "extra_forbidden":
        return _Problem("unknown", place)
    if kind == "missing":
        return _Problem("missing", place)
    if kind == "union_tag_not_found":
        return _tag_problem(place, value, str(context["discriminator"]).strip("'"))
    if kind == "union_tag_invalid":
        place, value = (*place, str(context["discriminator"]).strip("'")), context["tag"]
        reason = f"input should be {' or '.join(context['expected_tags'].rsplit(', ', 1))}"
        return _Problem("refused", place, (reason,), value, _choices(context["expected_tags"]))
    reason = details["msg"].removeprefix("Value error, ")
    words = _choices(context["expected"]) if kind == "literal_error" else ()
    return _Problem("refused", place, (f"{reason[0].lower()}{reason[1:]}",), value, words)


def _tag_problem(place: Place, value: object, tag: str) -> _Problem:
    """What selects the form of a union is missing, or there under a misspelt name."""
    name = spelling.closest_word(tag, value) if isinstance(value, dict) else None
    return _Problem("unknown", (*place, name), words=(tag,)) if name else _Problem("missing", (*place, tag))


def _choices(expected: str) -> tuple[str, ...]:
    """The choices in pydantic's `'soft', 'hard' or 'none'`, which it gives in no other form."""
    return tuple(re.findall("'([^']*)'", expected))


def _data_place(location: Sequence[str | int], data: object, *, last: bool) -> Place:
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


def _likely_key(problem: _Problem, missing: Sequence[str], data: object, model: type[pydantic.BaseModel]) -> str | None:
    """The key that an unknown one stands for: one of those that are not given, those that are missing first."""
    if problem.words:
        return problem.words[0]
    parent, name = problem.place[:-1], problem.place[-1]
    # Down the data and the classes together: of a union, each class is followed until `kind` tells which one it is.
    # An entry that is a union as a whole is a root model, which has no key of its own.
    root = model.model_fields.get("root") if issubclass(model, pydantic.RootModel) else None
    models = list(_models(root.annotation)) if root else [model]
    value = data
    for part in parent:
        models = [inner for outer in models for inner in _models_at(outer, part)]
        value = _value_at(value, part)
    keys = value if isinstance(value, dict) else {}
    fields = [field for candidate in _models_of_kind(models, keys) for field in candidate.model_fields]
    closest = spelling.closest_word(name, missing) or spelling.closest_word(name, fields)
    if closest in keys:
        return None
    return closest or (missing[0] if len(missing) == 1 else None)


def _value_at(data: object, part: str) -> object:
    if isinstance(data, list | tuple):
        return data[int(part)]
    return data.get(part) if isinstance(data, dict) else None


def _models_at(model: type[pydantic.BaseModel], part: str) -> list[type[pydantic.BaseModel]]:
    field = model.model_fields.get(part)
    # Within a list or a map, a position or a key stands for the same forms.
    return list(_models(field.annotation)) if field else [model]


def _models(annotation: object) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _models_of_kind(
    models: list[type[pydantic.BaseModel]], keys: Mapping[str, object]
) -> list[type[pydantic.BaseModel]]:
    """Of the forms of a union those whose `kind` is the one given."""
    kind = keys.get("kind")
    fields = ((model, model.model_fields.get("kind")) for model in models)
    fitting = [model for model, field in fields if field and kind in typing.get_args(field.annotation)]
    return fitting or models


def _explanation(problem: _Problem, key: str) -> tuple[str, str]:
    """What is wrong, and its cure."""
    name = _full_key(key, problem.place)
    if problem.kind == "missing":
        return f"{name} is missing", "Add it"
    first, *others = dict.fromkeys(problem.reasons)
    reasons = " or ".join((first, *(reason.removeprefix("input should be ") for reason in others)))
    near = spelling.did_you_mean(problem.value, problem.words) if isinstance(problem.value, str) else ""
    return f"{name} is refused: {reasons}. Got {errors.quote_value(problem.value)}", near.strip()


def _full_key(key: str, place: Place) -> str:
    return errors.shorten(".".join((*filter(None, [key]), *place))) or "the file"
