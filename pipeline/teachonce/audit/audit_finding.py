"""A finding of an audit, as its JSON report lists it."""

from pathlib import Path

from teachonce.core import config, errors


class Finding(config.Model):
    """One thing that is wrong with a cache or its shards."""

    file: str
    """File or folder, or its URL."""
    what: str
    """What is wrong: what must be, and what is."""
    cure: str
    """What to do about it."""


def from_error(error: errors.TeachonceError, file: str | Path | None = None) -> Finding:
    """A refusal as a finding.

    Args:
        error: the refusal.
        file: stands for the place that the error names, where the caller knows better.
    """
    return Finding(file=str(file or error.where), what=error.what, cure=error.cure)
