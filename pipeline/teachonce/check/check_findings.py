"""What a check finds: problems, which end the run, and warnings, which do not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from teachonce.core import errors

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Findings:
    """Lines in the order in which they were met."""

    problems: list[str] = field(default_factory=list)
    """What must be corrected."""
    warnings: list[str] = field(default_factory=list)
    """What would be a problem, were the stage to run that needs it."""

    def gather(self, read: Callable[[], T]) -> T | None:
        """What a function gives; None where it refuses, and then all its problems are kept."""
        try:
            return read()
        except errors.ConfigError as error:
            self.problems.extend(problem for problem in error.problems if problem not in self.problems)
            return None
