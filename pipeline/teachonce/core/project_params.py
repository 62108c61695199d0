"""What params.yaml chooses: files of configs/ by name, and where the images are. Stages read it; no shell does."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import config, errors, spelling

FILE = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""Name of a file in a folder of configs/, without its ending."""


_ELSEWHERE = "Name it by --params, or work in the folder of the project"


def read(params: Path) -> object:
    """params.yaml as plain data.

    Raises:
        ConfigError: it cannot be read, holds nothing, or what is refused.
    """
    data = config.read(params, _ELSEWHERE)
    if data is None:
        raise errors.ConfigError(params, "is empty", f"Write what to run, or restore it: git checkout HEAD {params}")
    return data


@dataclass(frozen=True, slots=True)
class ConfigChoices:
    """The choices of one params.yaml."""

    params: Path
    """params.yaml."""
    configs: Path
    """Folder of the files that it names: configs."""

    def file(self, group: str, given: Path | None = None) -> Path:
        """A file of configs/GROUP.

        Args:
            group: dataset, views, teacher or cache: a key of params.yaml and a folder of configs.
            given: the file itself, where it was named instead.

        Raises:
            ConfigError: params.yaml does not name one.
        """
        return given or self.configs / group / f"{self._name(group, self.text(group))}.yaml"

    def recipe(self, model: str, student: str, given: Path | None = None) -> Path:
        """The file of configs/student that a student names.

        Raises:
            ConfigError: that is no name of a file.
        """
        return given or self.configs / "student" / f"{self._name(f'students.{student}.model', model)}.yaml"

    def source(self, given: Path | None = None) -> Path:
        """The folder of the images.

        Raises:
            ConfigError: params.yaml does not name one.
        """
        if given is not None:
            return given
        text = self.text("source")
        if text.startswith("~"):
            condition, cure = "a path without ~, which nothing expands", f"Write {Path(text).expanduser()}"
            raise errors.ConfigError.for_value(self.params, "source", condition, text, cure)
        return Path(text)

    def text(self, key: str) -> str:
        """A value of params.yaml that must be text.

        Raises:
            ConfigError: it is missing, or no text.
        """
        data = read(self.params)
        if not isinstance(data, dict) or key not in data:
            near = spelling.closest_word(key, data) if isinstance(data, dict) else None
            cure = f"Is it there as {near}?" if near else "Add it"
            raise errors.ConfigError(self.params, f"{key} is missing", cure)
        value = data[key]
        if not isinstance(value, str) or not value:
            cure = "Write a name, in quotes if it looks like a number"
            raise errors.ConfigError.for_value(self.params, key, "text", errors.quote_value(value), cure)
        return value

    def _name(self, key: str, name: str) -> str:
        if not FILE.fullmatch(name):
            condition = f"the name of a file in {self.configs}, without folder and ending"
            cure = f"List the choices: ls {self.configs}/{'student' if '.' in key else key}"
            raise errors.ConfigError.for_value(self.params, key, condition, errors.shorten(name), cure)
        return name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `from_arguments` reads."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="what to run: params.yaml")
    parser.add_argument("--configs", type=Path, default=Path("configs"), help="folder of the files that it names")


def from_arguments(args: argparse.Namespace) -> ConfigChoices:
    """The choices that a command line names."""
    return ConfigChoices(args.params, args.configs)
