"""Put the report together: read, compare, draw, write."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import errors, files, outputs
from teachonce.report import disagreement, gallery, load_metrics, page, seed_spread, summary
from teachonce.shards import index
from teachonce.store import store_reader

PAGE = "index.html"
_KIND = outputs.Kind("an earlier report", PAGE, b"<title>teachonce", re.compile(""))


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a report reads and writes."""

    params: Path
    """params.yaml."""
    metrics: Path
    """Folder of the metrics of all stages."""
    shards: Path
    """Folder of shards."""
    cache: Path
    """Folder of the two stores."""
    predictions: Path
    """Folder of the students' predictions."""
    out: Path
    """Folder of the page."""


def report(paths: Paths) -> tuple[summary.Summary, tuple[load_metrics.Cost, ...]]:
    """Write the page and give the numbers of the table.

    Raises:
        ConfigError: params.yaml names no student.
        DataError: something is missing, or was made on other data.
        IdentityError: the stores are not of these shards.
    """
    inputs = paths.params, paths.metrics, paths.shards, paths.cache, paths.predictions
    out = outputs.Output(paths.out, _KIND, inputs)
    out.require_replaceable()
    entries = load_metrics.students(paths.params)
    found = load_metrics.gather(paths.metrics, entries)
    shards = index.read(paths.shards)
    train, val = (store_reader.open(paths.cache / f"{split}.zarr") for split in ("train", "val"))
    origin = disagreement.origin(shards, val)
    digests = {name: found.students[name].predictions_sha256 for name in entries}
    matrix = disagreement.matrix(paths.predictions, digests, origin)
    _require_images(paths.metrics, found, shards)
    groups = seed_spread.group(entries, found)
    numbers = summary.summarise(found, groups, train.recipe, matrix)
    firsts = {name: digests[name] for name in (group.members[0] for group in groups)}
    content = page.Content(
        found=found,
        numbers=numbers,
        matrix=disagreement.matrix(paths.predictions, firsts, origin),
        views=gallery.gallery(shards, train),
        recipe=train.recipe,
        classes=shards.index.classes,
    )
    html = page.page(content)
    with out.draft() as draft:
        files.write_bytes(draft / PAGE, html.encode())
    return numbers, found.costs


def _require_images(metrics: Path, found: load_metrics.Gathered, shards: index.Shards) -> None:
    """Refuse metrics of another data set: their counts would be printed beside shares they do not belong to."""
    wanted = (shards.index.nsamples("val"), len(shards.index.classes))
    for name, student in found.students.items():
        if (student.images, student.classes) != wanted:
            raise errors.DataError(
                errors.refusal(
                    metrics / "evaluate" / f"{name}.json",
                    "images and classes",
                    f"those of the shards, {wanted}",
                    (student.images, student.classes),
                    "Evaluate it again: dvc repro evaluate",
                )
            )


def show(path: Path, metrics: Path | None) -> tuple[summary.Summary, Sequence[load_metrics.Cost]]:
    """The numbers of an earlier report; with the metrics folder, what its stages cost too.

    Raises:
        DataError: a file is missing or not of the expected form.
    """
    numbers = load_metrics.parse(path, summary.Summary)
    return numbers, () if metrics is None else load_metrics.costs(metrics, numbers.order)
