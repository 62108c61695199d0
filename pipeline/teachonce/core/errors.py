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

_SHOWN = 100  # characters of a refused value


class TeachonceError(Exception):
    """A user's mistake or damaged input; its text is one line that names the file, the key and the cure."""

    exit_code = 1
    """Of the process that it ends."""


class ConfigError(TeachonceError):
    """A configuration value is refused; nothing was computed.

    Args:
        text: the one line.
        problems: a line for each problem there is, where `text` tells the first alone.
    """

    def __init__(self, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.problems = tuple(problems) or (text,)


class DataError(TeachonceError):
    """An image, a tar or an index is unreadable or not what its record says."""


class CacheError(TeachonceError):
    """A cache is damaged, incomplete or of a format this release cannot read."""


class IdentityError(CacheError):
    """A cache belongs to other shards, another policy, teacher or extent than asked.

    Args:
        text: the one line.
        accept: word by which a student's `accept` goes on in spite of it; None where nothing could be trained.
    """

    def __init__(self, text: str, accept: str | None = None) -> None:
        super().__init__(text)
        self.accept = accept


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

    exit_code = os.EX_PROTOCOL


class StoppedError(TeachonceError):
    """Someone asked a run to end; all is saved, and the same command goes on."""

    exit_code = os.EX_TEMPFAIL


class UnitsError(TeachonceError):
    """Some units failed, each on its own; its text lists them. The others are kept."""


class AuditError(TeachonceError):
    """An audit has findings; they are listed in its report."""


def refusal(where: object, key: str, condition: object, got: object, cure: str) -> str:
    """One line in the project's form: `where: key must be CONDITION. Got VALUE. CURE`."""
    return f"{where}: {key} must be {condition}. Got {got}. {cure}"


def raise_problems(problems: Sequence[str]) -> None:
    """End with the first problem and the count of the others, where there is any.

    Raises:
        ConfigError: there is.
    """
    if problems:
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{problems[0]}{more}", problems)


def shorten(text: str) -> str:
    """A text of anyone's, short enough for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def quote_value(value: object) -> str:
    """A refused value for a message; of a map its keys alone."""
    if isinstance(value, dict):
        return shorten(f"the keys {', '.join(map(str, value))}" if value else "an empty map")
    return shorten(repr(value))
