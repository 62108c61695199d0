"""YAML that people read: values as they would write them, in the lines of a file that is there already."""

import json
import re
from collections.abc import Mapping

from teachonce.tools.init import source_layout

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS_OF_YAML = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def value(data: object) -> str:
    """Plain data on one line of YAML; text in quotes where it could be read as anything else."""
    if isinstance(data, list | tuple):
        return f"[{', '.join(map(value, data))}]"
    if isinstance(data, str) and _PLAIN.fullmatch(data) and data.lower() not in _WORDS_OF_YAML:
        return data
    return json.dumps(data, ensure_ascii=False)


def with_settings(text: str, header: str, settings: Mapping[str, source_layout.Setting]) -> str:
    """A configuration with another header, and with some of its keys set, each with its reason beside it.

    Args:
        text: of a configuration.
        header: lines of comment in place of those that it begins with.
        settings: by key of its uppermost level; each has a line of its own there, or gets one at the end.
    """
    lines = text.splitlines()
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    for key, setting in settings.items():
        line = f"{key}: {value(setting.value)} # {setting.reason}"
        places = [number for number, old in enumerate(lines) if re.match(rf"{key}:(\s|$)", old)]
        lines[places[0] : places[0] + 1] = [line] if places else []
        lines += [] if places else [line]
    return "\n".join([header, *lines, ""])
