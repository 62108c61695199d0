"""What can go wrong for a user, as one tree.

    TeachonceError          caught once, at a stage's entry: one line on stderr, exit code 1
    ├─ ConfigError          a value in params.yaml or configs/ is refused
    ├─ DataError            an image, a tar or an index is not what it says
    ├─ CacheError           a cache is damaged, incomplete or of an unknown format
    │  └─ IdentityError     a sound cache, but not of these shards, this policy or this teacher
    │     └─ ViewDriftError   the views no longer replay to the pixels the teacher saw
    ├─ NumericsError        non-finite numbers where finite ones are needed
    ├─ StorageError         a bucket or an endpoint cannot be reached, or refuses
    ├─ LockedError          another process works in the same scratch folder
    ├─ DiskError            no room to write
    ├─ ClusterError         a Dask scheduler cannot be reached, or went away
    ├─ PeerError            another training process is gone; the checkpoint is kept
    ├─ StoppedError         someone asked the run to end, and it was saved: exit code 75, the same command goes on
    ├─ UnitsError           some units of the teacher's pass failed; the others are kept
    └─ AuditError           the audit of a cache has findings; its report lists them

Anything else that escapes is a bug and keeps its traceback.
"""

import os
from collections.abc import Sequence
from typing import Self

_MAX_SHOWN = 100  # characters of a refused value


class TeachonceError(Exception):
    """A user's mistake or damaged input.

    It carries its parts, and becomes text where it is shown: one line, `where: what. cure`.

    Args:
        where: the file, the option or the command; empty where the line begins with what is wrong.
        what: what is wrong, with the value.
        cure: what to do, often a command; empty where nothing can be done.
    """

    exit_code = 1
    """Exit code of the process that the error ends."""

    key = ""
    """Of the value that is refused, where one is: dotted within its file."""
    condition = ""
    """That the value does not meet."""
    value: object = None
    """That is refused."""

    def __init__(self, where: object, what: str, cure: str = "") -> None:
        # As arguments of an exception they travel from process to process.
        super().__init__(where, what, cure)
        self.where = str(where)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        """The line, and what is said of others."""
        return f"{self.line()}{self.suffix()}"

    def line(self) -> str:
        """The one line of this error alone."""
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}{self.cure and f'. {self.cure}'}"

    @classmethod
    def from_error(cls, error: "TeachonceError", cure: str = "") -> Self:
        """The same refusal as an error of this kind, with a further cure."""
        return cls(error.where, error.what, ". ".join(filter(None, (f"{error.cure}{error.suffix()}", cure))))

    def suffix(self) -> str:
        """What the line ends with, after the cure."""
        return ""

    @classmethod
    def for_value(cls, where: object, key: str, condition: object, value: object, cure: str) -> Self:
        """The refusal of a value: `where: key must be CONDITION. Got VALUE. CURE`."""
        text = str(value)
        # A name out of somebody's file may hold line ends, which would make two lines of one.
        error = cls(where, f"{key} must be {condition}. Got {text if text.isprintable() else repr(text)}", cure)
        error.key, error.condition, error.value = key, str(condition), value
        return error


class ConfigError(TeachonceError):
    """A configuration value is refused; nothing was computed."""

    others: tuple["ConfigError", ...] = ()
    """Further problems of the same data: the first hundred."""
    others_count = 0
    """Of all further problems."""

    def suffix(self) -> str:
        """How many more there are."""
        return f" ({self.others_count} more)" if self.others_count else ""


class DataError(TeachonceError):
    """An image, a tar or an index is unreadable or not what its record says."""


class CacheError(TeachonceError):
    """A cache is damaged, incomplete or of a format this release cannot read."""


class IdentityError(CacheError):
    """A cache belongs to other shards, another policy, teacher or extent than asked."""

    accept: str | None = None
    """Word by which a student's `accept` goes on in spite of it; None where nothing could be trained."""

    def accepted_by(self, accept: str | None) -> Self:
        """The same error, with the word that accepts it."""
        self.accept = accept
        return self


class ViewDriftError(IdentityError):
    """Views rendered here differ from those the teacher saw."""


class NumericsError(TeachonceError):
    """A logit, a loss or a weight is not finite."""


class StorageError(TeachonceError):
    """A place behind a URL cannot be reached, or refuses; what is there may be sound."""


class LockedError(TeachonceError):
    """Another live process holds the scratch folder."""


class DiskError(TeachonceError):
    """A disk is full, or a quota is used up; what was finished is kept."""


class ClusterError(TeachonceError):
    """A Dask scheduler cannot be reached, or went away; finished units are kept."""


class PeerError(TeachonceError):
    """Another training process is gone; what was saved is kept, and whoever started them may start them again."""

    # A code of its own: what a lost peer ended is started again, while a refusal would only come again.
    exit_code = os.EX_PROTOCOL


class StoppedError(TeachonceError):
    """Someone asked a run to end; all is saved, and the same command goes on."""

    exit_code = os.EX_TEMPFAIL


class UnitsError(TeachonceError):
    """Some units failed, each on its own; its text lists them. The others are kept."""


class AuditError(TeachonceError):
    """An audit has findings; they are listed in its report."""


def combine(problems: Sequence[ConfigError], count: int | None = None) -> ConfigError:
    """The first of some problems, which carries the others.

    Args:
        problems: in their order; at least one.
        count: of all problems, where there are more than these.
    """
    first, *others = problems
    first.others = tuple(others)
    first.others_count = len(others) if count is None else count - 1
    return first


def raise_problems(problems: Sequence[ConfigError]) -> None:
    """End with the first problem and the count of the others, where there is any.

    Raises:
        ConfigError: there is at least one problem.
    """
    if problems:
        raise combine(problems)


def shorten(text: str) -> str:
    """The first hundred characters of a text: a name or value of any length must not fill a person's terminal."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def single_line(error: BaseException) -> str:
    """An error's text on one line; the name of its class where it has none, as several libraries' errors."""
    return " ".join(str(error).split()) or type(error).__name__


def quote_value(value: object) -> str:
    """A refused value for a message; of a map its keys alone."""
    if isinstance(value, dict):
        return shorten(f"the keys {', '.join(map(str, value))}" if value else "an empty map")
    return shorten(repr(value))
