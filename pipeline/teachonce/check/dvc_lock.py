"""Stages that need not run again for their settings: those whose parameters are as dvc.lock has them."""

from collections.abc import Mapping
from pathlib import Path

from teachonce.core import config, errors, yaml_reader

_MOST_BYTES, _MOST_VALUES = 1 << 24, 1 << 20


class LastRuns:
    """The last run of each stage, as dvc.lock has it; the file is read at the first question."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stages: Mapping[str, object] | None = None

    def has(self, stage: str) -> bool:
        """Whether a stage has run at all."""
        return stage in self._entries()

    def is_settled(self, stage: str) -> bool:
        """Whether a stage has run with today's parameters: whether its inputs changed since is not looked at."""
        # As DVC itself does: parameters by value. Where an input changed, the stage runs all the same, and refuses by
        # itself what a check has passed on as a warning.
        entry = self._entries().get(stage)
        recorded = entry.get("params", {}) if isinstance(entry, dict) else None
        return isinstance(recorded, dict) and all(
            isinstance(values, dict) and self._is_same(Path(file), values) for file, values in recorded.items()
        )

    def _entries(self) -> Mapping[str, object]:
        if self._stages is None:
            try:
                content = yaml_reader.read(self._path, _MOST_BYTES, _MOST_VALUES)
            except errors.ConfigError:
                # Not there, or in DVC's way: DVC tells of it, and will run everything.
                content = None
            stages = content.get("stages") if isinstance(content, dict) else None
            self._stages = stages if isinstance(stages, dict) else {}
        return self._stages

    def _is_same(self, file: Path, values: Mapping[str, object]) -> bool:
        try:
            content = config.read(self._path.parent / file)
        except errors.ConfigError:
            return False
        return all(_value_at(content, key) == value for key, value in values.items())


def _value_at(content: object, key: str) -> object:
    for key_part in key.split("."):
        content = content.get(key_part) if isinstance(content, dict) else None
    return content
