"""What an audit lists: each thing that is wrong, on its own."""

from pathlib import Path

from teachonce.core import config, errors


class Finding(config.Model):
    """One thing that is wrong."""

    file: str
    """Where."""
    what: str
    """What is wrong, with both values."""
    cure: str
    """What to do."""


def from_error(error: errors.TeachonceError, file: str | Path | None = None) -> Finding:
    """A refusal in the project's form, `where: what. CURE`, as a finding; `file` says better where than its text."""
    where, _, rest = str(error).partition(": ")
    what, _, cure = rest.rpartition(". ")
    return Finding(file=str(file or where), what=what or rest, cure=cure)
