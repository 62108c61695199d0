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
    """Plain data of a params.yaml, not yet validated.

    Raises:
        ConfigError: it cannot be read, holds nothing, or what is refused.
    """
    data = config.read(params, _ELSEWHERE)
    if data is None:
        raise errors.ConfigError(params, "is empty", f"Write what to run, or restore it: git checkout HEAD {params}")
    return data


@dataclass(frozen=True, slots=True)
class ConfigChoices:
    """What one params.yaml chooses, read anew for each question: nothing is refused that nobody asks for."""

    params: Path
    """The file that makes the choices."""
    configs: Path
    """Folder of the files that it names: configs."""

    def file(self, group: str, path: Path | None = None) -> Path:
        """A file of configs/GROUP.

        Args:
            group: dataset, views, teacher or cache: a key of params.yaml and a folder of configs.
            path: the file itself, where the command line names it.

        Raises:
            ConfigError: params.yaml does not name one.
        """
        return path or self.configs / group / f"{self._name(group, self.text(group))}.yaml"

    def recipe(self, model: str, student: str, path: Path | None = None) -> Path:
        """The file of configs/student that a student names.

        Args:
            model: name of the file, as the student's entry has it.
            student: name of the student, for the message.
            path: the file itself, where the command line names it.

        Raises:
            ConfigError: that is no name of a file.
        """
        return path or self.configs / "student" / f"{self._name(f'students.{student}.model', model)}.yaml"

    def source(self, path: Path | None = None) -> Path:
        """The folder of the images.

        Raises:
            ConfigError: params.yaml does not name one.
        """
        if path is not None:
            return path
        text = self.text("source")
        # DVC takes a dependency as it stands, hence would look for a folder called ~.
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
        # A name with a slash or with .. would lead to files that are no choice of this folder, and that DVC does not
        # watch.
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
    """The choices that a command line with `add_arguments` names."""
    return ConfigChoices(args.params, args.configs)
