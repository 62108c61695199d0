"""What a check finds: problems, which end the run, and warnings, which do not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from teachonce.core import errors

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Findings:
    """One line for each finding, in the order in which they were met."""

    problems: list[errors.ConfigError] = field(default_factory=list)
    """Lines about what must be corrected; the command fails with them."""
    warnings: list[errors.ConfigError] = field(default_factory=list)
    """Lines about what would be a problem if the stage that needs it had to run."""

    def gather(self, read: Callable[[], T]) -> T | None:
        """The result of a function; None where it raises ConfigError, whose problems are added, each once."""
        try:
            return read()
        except errors.ConfigError as error:
            self.add([error, *error.others])
            return None

    def names(self, file: Path) -> bool:
        """Whether a problem is one of this file."""
        return any(problem.where.partition(":")[0] == str(file) for problem in self.problems)

    def add(self, problems: Iterable[errors.ConfigError]) -> None:
        """Keep those that are not there yet: two students may share a configuration."""
        lines = {problem.line() for problem in self.problems}
        self.problems.extend({problem.line(): problem for problem in problems if problem.line() not in lines}.values())
