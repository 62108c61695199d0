"""What a revision's dvc.lock says of its stages: settings, inputs and outputs as they were when each of them ran."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from teachonce.core import hashing, yaml_reader

NAME = "dvc.lock"
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_MOST_BYTES, _MOST_VALUES = 1 << 24, 1 << 20
_CODE = ("pipeline/", "stages/")
_DIGITS = 7

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, order=True)
class Knob:
    """Something that can differ from student to student."""

    file: str
    """Where it is set; empty for the student's entry in params.yaml, and `input` for data that a stage read."""
    key: str
    """Dotted, within its file."""


INPUT = "input"
CODE = Knob("", "code")
"""Stands for all code that trains a student."""


class LockedStages:
    """The stages of one dvc.lock."""

    def __init__(self, stages: Mapping[str, object]) -> None:
        self._stages = {name: entry for name, entry in stages.items() if isinstance(entry, dict)}
        self._makers = {path: name for name in self._stages for path, _ in self._files(name, "outs")}
        self.outputs: dict[str, str] = dict(pair for name in self._stages for pair in self._files(name, "outs"))
        """MD5 by the path of an output."""

    def __contains__(self, stage: str) -> bool:
        """Whether a stage has run."""
        return stage in self._stages

    def entry(self, stage: str, student: str) -> object:
        """A student's entry in params.yaml, as it was when a stage ran."""
        params = self._stages[stage].get("params")
        values = params.get("params.yaml") if isinstance(params, dict) else None
        return values.get(f"students.{student}") if isinstance(values, dict) else None

    def knobs(self, stage: str, student: str) -> dict[Knob, Scalar]:
        """All that decided what a stage made of a student: its own settings and those of the stages before it.

        Args:
            stage: name of the stage.
            student: whose entry in params.yaml counts as the student's own.
        """
        knobs: dict[Knob, Scalar] = {}
        for name in self._upstream(stage):
            params = self._stages[name].get("params")
            for file, values in params.items() if isinstance(params, dict) else ():
                for key, value in _leaves(values):
                    own = key.removeprefix(f"students.{student}.")
                    knobs[Knob("" if file == "params.yaml" else file, own)] = value
        inputs = list(self._files(stage, "deps"))
        for path, md5 in inputs:
            if not path.startswith(_CODE):
                knobs[Knob(INPUT, path)] = md5[:_DIGITS]
        code = {path: md5 for path, md5 in inputs if path.startswith(_CODE)}
        return knobs | {CODE: hashing.json_digest(code)[:_DIGITS]}

    def _upstream(self, stage: str) -> list[str]:
        """A stage, and all that made what it read; the stage itself last, whose settings win."""
        names = [stage]
        for name in names:
            paths = [PurePosixPath(path) for path, _ in self._files(name, "deps")]
            makers = (self._makers.get(str(parent)) for path in paths for parent in (path, *path.parents))
            names += [maker for maker in dict.fromkeys(makers) if maker is not None and maker not in names]
        return names[::-1]

    def _files(self, stage: str, kind: str) -> Iterator[tuple[str, str]]:
        entries = self._stages[stage].get(kind)
        for entry in entries if isinstance(entries, list) else ():
            path, md5 = (entry.get(key) if isinstance(entry, dict) else None for key in ("path", "md5"))
            # The digest becomes a path: a lock of anyone's must not lead out of DVC's cache.
            if isinstance(path, str) and isinstance(md5, str) and _MD5.fullmatch(md5):
                yield path, md5


def read(path: Path) -> LockedStages:
    """The stages of a dvc.lock; none where the file is not there.

    Raises:
        ConfigError: it is damaged.
    """
    content = yaml_reader.read(path, _MOST_BYTES, _MOST_VALUES) if path.exists() else None
    stages = content.get("stages") if isinstance(content, dict) else None
    return LockedStages(stages if isinstance(stages, dict) else {})


def _leaves(data: object, key: str = "") -> Iterator[tuple[str, Scalar]]:
    """Values by dotted key; a list is one value, and 3.0 is 3."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(data, float) and data.is_integer():
        yield key, int(data)
    else:
        yield key, data if isinstance(data, str | int | float | bool | None) else hashing.canonical_json(data)
