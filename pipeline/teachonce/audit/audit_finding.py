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
    """A refusal as a finding; `file` says better where than the error does."""
    return Finding(file=str(file or error.where), what=error.what, cure=error.cure)
