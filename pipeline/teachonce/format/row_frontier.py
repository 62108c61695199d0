"""Bytes against accuracy: what rows of other forms would take and lose, so that a person can choose one.

The cache stage measures it where it fits a basis, and leaves it beside the stores; no reader needs it.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from teachonce.core import config, errors, files, storage
from teachonce.format import schema

NAME = "frontier.json"
MAX_BYTES = 1 << 20
"""Most bytes of the file, which nobody vouches for: those of thousands of points."""
_REMOVE = "Remove it, or make the cache again: dvc repro cache"
_Count = Annotated[int, pydantic.Field(ge=1, le=1 << 53)]
_Tau = Annotated[int, pydantic.Field(ge=1, le=100)]  # no student has a greater one
_Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class RowFormat(config.Model):
    """How many classes a row keeps, and how its tail is coded."""

    k: int = pydantic.Field(ge=1, le=schema.MAX_CLASSES)
    """How many classes are kept."""
    rank: int | None = pydantic.Field(default=None, ge=1, le=schema.MAX_CLASSES)
    """Coefficients of a transform tail; None for a flat one."""
    step: float | None = pydantic.Field(default=None, gt=0)
    """Their quantiser step in scaled nats; None where the tail is flat."""


class Point(config.Model):
    """What one form of row takes on disk, and what it loses."""

    form: RowFormat
    """The form of row that was measured."""
    bytes_a_view: float = pydantic.Field(gt=0, le=1 << 53)
    """Compressed bytes of a row; keys, canaries, records and basis, which rows share, are not counted."""
    tv: tuple[_Share, ...]
    """Mean total variation to the teacher's full softmax, by tau."""

    @property
    def mean_tv(self) -> float:
        """Mean of `tv` over the taus."""
        return sum(self.tv) / len(self.tv)


class Frontier(config.Model):
    """All forms that were measured."""

    format: Literal[1] = 1
    """Version of this file's form."""
    taus: tuple[_Tau, ...] = pydantic.Field(min_length=1)
    """Temperatures at which total variation was measured."""
    views_fitted: _Count
    """Views that the bases of this measurement were fitted on."""
    views_measured: _Count
    """Views of other images, that bytes and distances are of."""
    chosen: RowFormat
    """The form that the configuration asks for."""
    points: tuple[Point, ...] = pydantic.Field(min_length=1)
    """What was measured of each form, by rising bytes."""

    @pydantic.model_validator(mode="after")
    def _require_consistent(self) -> "Frontier":
        if any(len(point.tv) != len(self.taus) for point in self.points):
            raise ValueError(f"tv of each point must tell one number of each of the {len(self.taus)} taus")
        if any(after.bytes_a_view < before.bytes_a_view for before, after in itertools.pairwise(self.points)):
            raise ValueError("points must come by rising bytes_a_view")
        return self


def read(place: str | Path) -> Frontier | None:
    """The measurement beside the stores of a folder, or of a URL; None where nothing has its name.

    Raises:
        CacheError: what has its name is no regular file, or not of the expected form.
    """
    folder = storage.open_folder(place, errors.CacheError)
    # By its name among the others: a link, a pipe or a folder of that name is refused below, not taken for no file.
    if NAME not in folder.entries():
        return None
    path = folder.file(NAME, most_bytes=MAX_BYTES)
    try:
        data = files.read_bytes(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise errors.CacheError(path, f"cannot be read ({error})", _REMOVE) from error
    return from_json(data, path)


def from_json(text: str | bytes, path: Path) -> Frontier:
    """A measurement from its JSON.

    Raises:
        CacheError: it is not of the expected form; the message names `path`.
    """
    try:
        data = files.parse_json(text.encode() if isinstance(text, str) else text)
    except ValueError as error:
        raise errors.CacheError(path, f"is no JSON: {error}", _REMOVE) from error
    try:
        return config.parse(data, Frontier, str(path))
    except errors.ConfigError as error:
        raise errors.CacheError.from_error(error, _REMOVE) from error


def pareto_points(frontier: Frontier) -> Iterator[Point]:
    """The points that no smaller one beats in total variation, taken over all taus."""
    lowest = float("inf")
    for point in frontier.points:
        # Points come by rising bytes: one that is better than all before it is beaten by no smaller one.
        if point.mean_tv < lowest:
            lowest = point.mean_tv
            yield point


def format_points(frontier: Frontier) -> str:
    """The best points as a table, with that of the configuration."""
    best = list(pareto_points(frontier))
    lines = [_line("k", "tail", "bytes", [f"tau {tau}" for tau in frontier.taus])]
    for point in frontier.points:
        is_configured = point.form == frontier.chosen
        if is_configured or point in best:
            row_format = point.form
            tail = (
                f"rank {row_format.rank}, step {row_format.step:g}" if row_format.rank and row_format.step else "flat"
            )
            line = _line(str(row_format.k), tail, f"{point.bytes_a_view:.1f}", [f"{tv:.4f}" for tv in point.tv])
            lines.append(f"{line}  <- configured" if is_configured else line)
    head = (
        "Bytes of a row and its mean total variation to the full softmax: forms that no smaller one beats, on "
        f"{frontier.views_measured:,} views of images apart from those of the fit ({frontier.views_fitted:,} views)."
    )
    return "\n".join([head, *lines])


def _line(k: str, tail: str, size: str, tvs: list[str]) -> str:
    return f"{k:>5}  {tail:<18}{size:>8}" + "".join(f"{tv:>9}" for tv in tvs)
