"""Put the report together: read, compare, draw, write."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import errors, files, outputs
from teachonce.report import (
    class_words,
    disagreements,
    gallery,
    key_result,
    load_metrics,
    mistake_pictures,
    page,
    seed_spread,
    summary,
    temperature_table,
)
from teachonce.shards import index
from teachonce.store import store_reader

PAGE, SUMMARY = "index.html", "summary.json"
_KIND = outputs.FolderKind("an earlier report", PAGE, b"<title>teachonce", re.compile(re.escape(SUMMARY)))


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """What a report reads, and where it writes."""

    params: Path
    """params.yaml, which names the students."""
    records: Path
    """Folder of what the stages say of their results."""
    costs: Path
    """Folder of what the stages cost."""
    curves: Path
    """Folder of the students' training curves."""
    shards: Path
    """Folder of the shards that the cache was made of."""
    cache: Path
    """Folder of the training and validation stores."""
    predictions: Path
    """Folder of the students' predictions."""
    out: Path
    """Folder of the page, and of the numbers of the table."""


def build_page(paths: ReportPaths) -> tuple[summary.Summary, tuple[load_metrics.StageCost, ...]]:
    """Write the page and the numbers of the table, and give these.

    Raises:
        ConfigError: params.yaml names no student.
        DataError: something is missing, or was made on other data.
        IdentityError: the stores are not of these shards.
    """
    results = paths.records, paths.costs, paths.curves
    out = outputs.Output(paths.out, _KIND, (paths.params, *results, paths.shards, paths.cache, paths.predictions))
    # First of all: a folder that may not be replaced is refused before anything is read.
    out.require_replaceable()
    entries = load_metrics.read_students(paths.params)
    metrics = load_metrics.collect(*results, entries)
    shards = index.read(paths.shards)
    train, val = (store_reader.open(paths.cache / f"{split}.zarr") for split in ("train", "val"))
    origin = disagreements.expected_provenance(shards, val)
    digests = {name: metrics.students[name].predictions_sha256 for name in entries}
    answers = disagreements.read_predictions(paths.predictions, digests, origin)
    _require_images(paths.records, metrics, shards)
    groups = seed_spread.group_students(entries, metrics)
    numbers = summary.from_metrics(metrics, groups, train.recipe, disagreements.compare_answers(answers))
    numbers = numbers.model_copy(update={"headline": key_result.describe_result(numbers, metrics, answers)})
    # The page shows one student of a group beside the others: with all seeds of all groups it would not fit a screen.
    firsts = {name: answers[name] for name in (group.members[0] for group in groups)}
    subject = key_result.best_group(numbers).members[0]
    names = class_words.name_classes(shards.index.classes)
    views = gallery.collect_views(shards, train, names)
    content = page.ReportData(
        metrics=metrics,
        numbers=numbers,
        answers=firsts,
        subject=subject,
        mistakes=mistake_pictures.picture_mistakes(
            mistake_pictures.Validation(shards, val, names),
            paths.records / "evaluate" / f"{subject}.json",
            metrics.students[subject].surest_errors,
            answers,
        ),
        views=views,
        temperatures=temperature_table.tabulate_temperatures(train, views),
        recipe=train.recipe,
        classes=names,
    )
    html = page.render_html(content)
    with out.draft() as draft:
        files.write_bytes(draft / PAGE, html.encode())
        files.write_json(draft / SUMMARY, numbers.model_dump(mode="json", exclude_none=True))
    return numbers, metrics.costs


def _require_images(records: Path, metrics: load_metrics.StageMetrics, shards: index.Shards) -> None:
    """Refuse evaluations on another data set: their counts would be printed beside shares they do not belong to."""
    expected = (shards.index.nsamples("val"), len(shards.index.classes))
    for name, student in metrics.students.items():
        if (student.images, student.classes) != expected:
            raise errors.DataError.for_value(
                records / "evaluate" / f"{name}.json",
                "images and classes",
                f"those of the shards, {expected}",
                (student.images, student.classes),
                "Evaluate it again: dvc repro evaluate",
            )


def read_earlier(path: Path, costs: Path | None) -> tuple[summary.Summary, Sequence[load_metrics.StageCost]]:
    """The numbers of an earlier report; with the folder of costs, what its stages took too.

    Raises:
        DataError: a file is missing or not of the expected form.
    """
    numbers = load_metrics.read_model(path, summary.Summary)
    return numbers, () if costs is None else load_metrics.read_costs(costs, numbers.order)
