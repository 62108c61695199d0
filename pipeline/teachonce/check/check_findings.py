"""What a check finds: problems, which end the run, and warnings, which do not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from teachonce.core import errors

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Findings:
    """Lines in the order in which they were met."""

    problems: list[errors.ConfigError] = field(default_factory=list)
    """What must be corrected."""
    warnings: list[errors.ConfigError] = field(default_factory=list)
    """What would be a problem, were the stage to run that needs it."""

    def gather(self, read: Callable[[], T]) -> T | None:
        """What a function gives; None where it refuses, and then all its problems are kept."""
        try:
            return read()
        except errors.ConfigError as error:
            self.add([error, *error.others])
            return None

    def add(self, problems: Iterable[errors.ConfigError]) -> None:
        """Keep those that are not there yet: two students may share a configuration."""
        lines = {problem.line() for problem in self.problems}
        self.problems.extend({problem.line(): problem for problem in problems if problem.line() not in lines}.values())
