"""Which stages DVC would not run for their settings: those whose parameters are as in dvc.lock."""

from collections.abc import Mapping
from pathlib import Path

from teachonce.core import config, errors, yaml_reader

_MOST_BYTES, _MOST_VALUES = 1 << 24, 1 << 20


class LastRuns:
    """What dvc.lock says of the last runs; read when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stages: Mapping[str, object] | None = None

    def has(self, stage: str) -> bool:
        """Whether a stage has run at all."""
        return stage in self._entries()

    def is_settled(self, stage: str) -> bool:
        """Whether a stage has run with the parameters of today, so that it may not have to run again."""
        entry = self._entries().get(stage)
        recorded = entry.get("params", {}) if isinstance(entry, dict) else None
        return isinstance(recorded, dict) and all(
            isinstance(values, dict) and self._is_same(Path(file), values) for file, values in recorded.items()
        )

    def _entries(self) -> Mapping[str, object]:
        if self._stages is None:
            try:
                data = yaml_reader.read(self._path, _MOST_BYTES, _MOST_VALUES)
            except errors.ConfigError:
                # Not there, or in DVC's way: DVC tells of it, and will run everything.
                data = None
            stages = data.get("stages") if isinstance(data, dict) else None
            self._stages = stages if isinstance(stages, dict) else {}
        return self._stages

    def _is_same(self, file: Path, values: Mapping[str, object]) -> bool:
        try:
            data = config.read(self._path.parent / file)
        except errors.ConfigError:
            return False
        return all(_inside(data, key) == value for key, value in values.items())


def _inside(data: object, key: str) -> object:
    for part in key.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data
