"""YAML into plain data as DVC reads it: the events of its parser, and the scalars of YAML 1.2's core schema.

Scalars that the core schema and DVC read differently are refused, and so is what makes a small file large or deep:
anchors, aliases and tags.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import ruamel.yaml
from ruamel.yaml import events
from ruamel.yaml.error import YAMLError

from teachonce.core import errors, files, spelling

MAX_YAML_BYTES = 1 << 19
"""Most bytes of a file; the names of 22,000 classes take half of them."""
MAX_NESTING = 32
"""Most maps and lists in one another."""
MAX_VALUES = 1 << 15
"""Most values of all maps and lists together."""
_MAX_DIGITS = 300
_MAX_PROBLEMS = 100

# https://yaml.org/spec/1.2.2/#103-core-schema, by tag
_CORE = {
    "null": re.compile(r"|~|null|Null|NULL"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"


def read(path: Path, most_bytes: int = MAX_YAML_BYTES, most_values: int = MAX_VALUES, *, cure: str = "") -> object:
    """Maps, lists and scalars of a YAML file; an empty file is None.

    Args:
        path: the file.
        most_bytes: how many bytes it may have.
        most_values: how many values its maps and lists may have together.
        cure: what helps where it cannot be read; by default, to choose another file of its folder.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or holds what is refused; it lists every such place.
    """
    text = _text(path, most_bytes, cure or f"List the choices: ls {path.parent}")
    yaml = ruamel.yaml.YAML(typ="safe", pure=True)
    builder = _Builder(path, yaml.resolver, most_values)
    try:
        data = builder.document(yaml.parse(text))
    except (YAMLError, ValueError) as error:  # ValueError: of "\UFFFFFFFF", in the parser itself
        raise errors.ConfigError(path, f"is not YAML: {_reason(error)}", "Correct the file") from error
    errors.raise_problems(builder.problems)
    return data


def _text(path: Path, most_bytes: int, cure: str) -> str:
    try:
        return files.read_bytes(path, most_bytes).decode()
    except OSError as error:
        near = spelling.did_you_mean(path.name, (other.name for other in _siblings(path)))
        raise errors.ConfigError(path, f"cannot be read ({error.strerror})", f"{cure}{near and f'.{near}'}") from error
    except UnicodeDecodeError as error:
        raise errors.ConfigError(path, f"is not YAML: byte {error.start} is not UTF-8", "Save it as UTF-8") from error
    except ValueError as error:
        raise errors.ConfigError(path, str(error), "Name a smaller file") from error


def _siblings(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.yaml")) if path.parent.is_dir() else []


def _reason(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return errors.shorten(errors.single_line(error))
    return f"line {mark.line + 1}, column {mark.column + 1}: {errors.shorten(' '.join(problem.split()))}"


class _Builder:
    """Data from the events of a parser, and the problems met on the way."""

    def __init__(self, path: Path, resolver: ruamel.yaml.resolver.BaseResolver, most_values: int) -> None:
        self._path = path
        self._resolver = resolver
        self._values = 0
        self._most_values = most_values
        self.problems: list[errors.ConfigError] = []

    def document(self, stream: Iterator[events.Event]) -> object:
        """Build the one document of a stream; None where it is empty."""
        data: object = None
        count = 0
        for event in stream:
            if isinstance(event, events.DocumentStartEvent):
                count += 1
                self._refuse_directives(event, count)
                data = self._node(next(stream), stream, "", 0)
        return data

    def _refuse_directives(self, event: events.DocumentStartEvent, count: int) -> None:
        if count > 1:
            raise errors.ConfigError(self._path, "holds more than one document", "Remove the line ---")
        if event.version or event.tags:
            raise errors.ConfigError(self._path, "begins with a directive (%)", "Remove that line")

    def _node(self, event: events.Event, stream: Iterator[events.Event], key: str, depth: int) -> object:
        if depth > MAX_NESTING:
            self._give_up(key, f"nested in at most {MAX_NESTING} maps and lists")
        # Counted as they come, before anything is built of them: a file may be all brackets.
        self._values += 1
        if self._values > self._most_values:
            self._give_up(key, f"among the first {self._most_values:,} values of a file")
        self._refuse_extras(event, key)
        if isinstance(event, events.ScalarEvent):
            return self._scalar(event, key)
        if isinstance(event, events.SequenceStartEvent):
            return self._list(stream, key, depth + 1)
        if isinstance(event, events.MappingStartEvent):
            return self._map(stream, key, depth + 1)
        return None  # an alias, refused above

    def _refuse_extras(self, event: events.Event, key: str) -> None:
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            sign = "*" if isinstance(event, events.AliasEvent) else "&"
            self._refuse(key, "without anchors and aliases", f"{sign}{anchor}", "Write the value out")
        if tag is not None:
            self._refuse(key, "without a tag", tag, "Write the plain value, text in quotes")

    def _list(self, stream: Iterator[events.Event], key: str, depth: int) -> list[object]:
        data: list[object] = []
        for event in stream:
            if isinstance(event, events.SequenceEndEvent):
                break
            data.append(self._node(event, stream, f"{key}.{len(data)}" if key else str(len(data)), depth))
        return data

    def _map(self, stream: Iterator[events.Event], key: str, depth: int) -> dict[str, object]:
        data: dict[str, object] = {}
        for event in stream:
            if isinstance(event, events.MappingEndEvent):
                break
            name = str(getattr(event, "value", "?"))
            path = f"{key}.{name}" if key else name
            # A key is read as any value is, so that one that is a number, a list or an alias is refused by the same
            # rules.
            key_data = self._node(event, stream, f"the key {path}", depth)
            if not isinstance(key_data, str):
                self._refuse(f"the key {path}", "text", errors.quote_value(key_data), "Begin it with a letter")
            elif name in data:
                what = f"{errors.shorten(path)} is given twice"
                self.problems.append(errors.ConfigError(self._path, what, "Remove one of them"))
            data[name] = self._node(next(stream), stream, path, depth)
        return data

    def _scalar(self, event: events.ScalarEvent, key: str) -> object:
        text = str(event.value)
        if _CONTROL.search(text):
            self._refuse(key, "text without control characters", errors.quote_value(text), "Remove them")
            return None
        if not event.implicit[0]:
            return text  # in quotes, or with a tag, which is refused
        kind = next((name for name, pattern in _CORE.items() if pattern.fullmatch(text)), "str")
        # The parser's resolver is DVC's. Where it sees another type than the core schema does, as in 1_000, the stage
        # would work with another value than the one that DVC records.
        if str(self._resolver.resolve(ruamel.yaml.ScalarNode, text, (True, False))) != f"{_TAG}{kind}":
            cure = "Write numbers as 0.001, 1e-3 or 1000, anything else in quotes"
            self._refuse(key, "a scalar that Python and DVC read alike", errors.shorten(text), cure)
            return None
        return self._value(kind, text, key)

    def _value(self, kind: str, text: str, key: str) -> object:
        if kind == "int" and len(text) > _MAX_DIGITS:
            self._refuse(key, f"a number of at most {_MAX_DIGITS} digits", errors.shorten(text), "Shorten it")
            return None
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
            case "float":
                # .inf and .nan have their point in front
                return float(text.replace(".", "") if "n" in text.lower() else text)
        return text

    def _refuse(self, key: str, condition: str, value: object, cure: str) -> None:
        value = errors.shorten(str(value))
        self.problems.append(
            errors.ConfigError.for_value(self._path, errors.shorten(key or "the file"), condition, value, cure)
        )
        if len(self.problems) >= _MAX_PROBLEMS:
            errors.raise_problems(self.problems)

    def _give_up(self, key: str, condition: str) -> None:
        raise errors.ConfigError.for_value(self._path, errors.shorten(key), condition, "more", "Write less")
