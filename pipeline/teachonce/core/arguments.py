"""A command's arguments: argparse, whose refusals are those of everything else, one line with a cure."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from teachonce.core import errors, spelling


class ArgumentParser(argparse.ArgumentParser):
    """Of one command. What argparse would print with its usage and end with exit code 2 is raised instead."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's.

        Raises:
            ConfigError: an argument is unknown, missing, or not what it must be.
        """
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            # Without the dashes, by which all options are alike.
            near = spelling.closest_word(word.lstrip("-"), re.findall(r"--([\w-]+)", self.format_usage()))
            cure = f"Did you mean --{near}?" if near else f"List them: {self.prog} --help"
            raise errors.ConfigError(self.prog, f"{errors.shorten(word)} is none of its arguments", cure)
        return found

    def error(self, message: str) -> NoReturn:
        """Refuse; argparse calls it."""
        raise errors.ConfigError(self.prog, message, f"See {self.prog} --help")
