"""YAML that people read: values as they would write them, in the lines of a file that is there already."""

import json
import re
from collections.abc import Mapping

from teachonce.tools.init import source_layout

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS_OF_YAML = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def to_yaml(data: object) -> str:
    """Plain data on one line of YAML; text in quotes where it could be read as anything else."""
    if isinstance(data, list | tuple):
        return f"[{', '.join(map(to_yaml, data))}]"
    if isinstance(data, str) and _PLAIN.fullmatch(data) and data.lower() not in _WORDS_OF_YAML:
        return data
    return json.dumps(data, ensure_ascii=False)


def with_settings(text: str, header: str, settings: Mapping[str, source_layout.Setting]) -> str:
    """A configuration with another header, and with some of its keys set, each with its reason beside it.

    Args:
        text: of a configuration.
        header: lines of comment in place of those that it begins with.
        settings: by key, dotted for one level within another; each has a line of its own, or gets one.
    """
    lines = text.splitlines()
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    for key, setting in settings.items():
        _set_line(lines, key, f"{to_yaml(setting.value)} # {setting.reason}")
    return "\n".join([header, *lines, ""])


def _set_line(lines: list[str], key: str, text: str) -> None:
    """Set the line of a key, in place; a key that has none gets one at the end of its map."""
    parent, _, name = key.rpartition(".")
    indent = "  " if parent else ""
    start = lines.index(f"{parent}:") + 1 if parent else 0
    # Of a map within the file: the lines that are indented, up to the first that is not.
    stop = next((place for place in range(start, len(lines)) if parent and lines[place][:1] != " "), len(lines))
    places = [place for place in range(start, stop) if re.match(rf"{indent}{name}:(\s|$)", lines[place])]
    place, end = (places[0], places[0] + 1) if places else (stop, stop)
    lines[place:end] = [f"{indent}{name}: {text}"]
