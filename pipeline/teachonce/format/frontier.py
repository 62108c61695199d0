"""Bytes against accuracy: what rows of other forms would take and lose, so that a person can choose one.

The cache stage measures it where it fits a basis, and leaves it beside the stores; no reader needs it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pydantic

from teachonce.core import config, errors

NAME = "frontier.json"


class Form(config.Model):
    """A form of row."""

    k: int = pydantic.Field(ge=1)
    """Classes kept."""
    rank: int | None = pydantic.Field(default=None, ge=1)
    """Coefficients of a transform tail; None for a flat one."""
    step: float | None = pydantic.Field(default=None, gt=0)
    """Their quantiser step in scaled nats; None where the tail is flat."""


class Point(config.Model):
    """What a form takes and loses."""

    form: Form
    """Which."""
    bytes_a_view: float = pydantic.Field(gt=0)
    """Compressed bytes of a row; keys, canaries, records and basis, which rows share, are not counted."""
    tv: tuple[float, ...]
    """Mean total variation to the teacher's full softmax, by tau."""

    @property
    def mean_tv(self) -> float:
        """Over the taus."""
        return sum(self.tv) / len(self.tv)


class Frontier(config.Model):
    """All forms that were measured."""

    format: Literal[1] = 1
    """Version of this form."""
    taus: tuple[int, ...] = pydantic.Field(min_length=1)
    """Where total variation was measured."""
    views_fitted: int
    """Views that the bases of this measurement were fitted on."""
    views_measured: int
    """Views of other images, that bytes and distances are of."""
    chosen: Form
    """What the configuration asks for."""
    points: tuple[Point, ...]
    """By rising bytes."""


def read(folder: Path) -> Frontier | None:
    """The measurement beside a folder's stores; None where there is none.

    Raises:
        CacheError: the file is not of the expected form.
    """
    path = folder / NAME
    return parse(path.read_bytes(), path) if path.is_file() else None


def parse(text: str | bytes, path: Path) -> Frontier:
    """A measurement from its JSON.

    Raises:
        CacheError: it is not of the expected form; the message names `path`.
    """
    try:
        return config.parse(json.loads(text), Frontier, str(path))
    except (ValueError, errors.ConfigError) as error:
        where = "" if isinstance(error, errors.ConfigError) else f"{path}: is no JSON: "
        raise errors.CacheError(f"{where}{error}. Remove it, or make the cache again: dvc repro cache") from error


def best(frontier: Frontier) -> Iterator[Point]:
    """The points that no smaller one beats in total variation, taken over all taus."""
    lowest = float("inf")
    for point in frontier.points:
        if point.mean_tv < lowest:
            lowest = point.mean_tv
            yield point


def text(frontier: Frontier) -> str:
    """The best points as a table, with that of the configuration."""
    shown = list(best(frontier))
    lines = [_line("k", "tail", "bytes", [f"tau {tau}" for tau in frontier.taus])]
    for point in frontier.points:
        chosen = point.form == frontier.chosen
        if chosen or point in shown:
            form = point.form
            tail = f"rank {form.rank}, step {form.step:g}" if form.rank and form.step else "flat"
            line = _line(str(form.k), tail, f"{point.bytes_a_view:.1f}", [f"{tv:.4f}" for tv in point.tv])
            lines.append(f"{line}  <- configured" if chosen else line)
    head = (
        "Bytes of a row and its mean total variation to the full softmax: forms that no smaller one beats, on "
        f"{frontier.views_measured:,} views of images apart from those of the fit ({frontier.views_fitted:,} views)."
    )
    return "\n".join([head, *lines])


def _line(k: str, tail: str, size: str, tvs: list[str]) -> str:
    return f"{k:>5}  {tail:<18}{size:>8}" + "".join(f"{tv:>9}" for tv in tvs)
