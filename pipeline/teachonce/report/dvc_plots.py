"""What `dvc plots show` draws: all students in one graph, for the templates in .dvc/plots.

Shapes: N validation images with a label.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from teachonce.core import files, outputs, terminal
from teachonce.evaluate import predictions
from teachonce.report import load_metrics, write_report
from teachonce.shards import index

_POINTS = 200
"""Most points of a curve: DVC writes each of them into its page."""
_CLASSES = 30
"""Most classes of a confusion matrix that a person can read."""
_OTHERS = "…"
_ACCURACY = "top1.csv"
_KIND = outputs.FolderKind(
    "earlier data of plots", _ACCURACY, b"student,head,top1", re.compile(r"(confusion/)?[A-Za-z0-9_-]+\.csv")
)
_HEADER_BY_CURVE = {curve: ("step", "student", curve) for curve in ("label_loss", "teacher_loss")}


def plots_output(paths: write_report.ReportPaths, folder: Path) -> outputs.Output:
    """The folder of the data, apart from what a report reads."""
    inputs = (paths.params, paths.records, paths.costs, paths.curves, paths.shards, paths.cache, paths.predictions)
    return outputs.Output(folder, _KIND, inputs, (paths.out,), "--plots")


def write_plots(paths: write_report.ReportPaths, folder: Path) -> None:
    """Write what each graph is drawn from, as CSV; empty tables of what there is none of.

    Args:
        paths: what a report reads.
        folder: where to.

    Raises:
        DataError: something is missing or damaged.
    """
    metrics = load_metrics.collect(paths.records, paths.costs, paths.curves, load_metrics.read_students(paths.params))
    classes = index.read(paths.shards).index.classes
    with plots_output(paths, folder).draft() as draft:
        for curve, header in _HEADER_BY_CURVE.items():
            _write(draft / f"{curve}.csv", header, _curve_rows(metrics, curve))
        _write(draft / _ACCURACY, ("student", "head", "top1"), _accuracies(metrics))
        _write(draft / "top1_by_pass.csv", ("step", "student", "top1"), _passes(metrics))
        (draft / "confusion").mkdir()
        for name, evaluation in metrics.students.items():
            arrays, _ = predictions.read(paths.predictions / name, evaluation.predictions_sha256)
            path = draft / "confusion" / f"{name}.csv"
            _write(path, ("actual", "predicted"), _confusion(arrays, classes))


def _curve_rows(metrics: load_metrics.StageMetrics, curve: str) -> Iterator[tuple[object, ...]]:
    for name, curves in metrics.curves.items():
        steps, values = curves.get(curve, ([], []))
        # Means over a few steps each: single batches of mixed views would hide the curve.
        for part in np.array_split(np.arange(len(steps)), min(_POINTS, len(steps))) if steps else ():
            yield steps[part[-1]], name, f"{np.mean([values[point] for point in part]):.5g}"


def _accuracies(metrics: load_metrics.StageMetrics) -> Iterator[tuple[object, ...]]:
    for name, evaluation in metrics.students.items():
        for head, score in evaluation.heads.items():
            if score.top1 is not None:
                yield name, predictions.HEAD_TITLES[head], f"{100 * score.top1:.2f}"


def _passes(metrics: load_metrics.StageMetrics) -> Iterator[tuple[object, ...]]:
    for name, evaluation in metrics.students.items():
        for point in evaluation.accuracy_by_pass:
            yield point.step, name, f"{100 * point.top1:.2f}"


def _confusion(arrays: predictions.ClassPredictions, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Label and answer of each image; of many classes, those that most errors are of, the others as one."""
    label_N, answer_N = arrays["label"], arrays.get("both", arrays["class"])
    is_labelled_N = label_N != index.UNLABELLED
    pairs = list(zip(label_N[is_labelled_N].tolist(), answer_N[is_labelled_N].tolist(), strict=True))
    shown = set(range(len(classes)))
    if len(classes) > _CLASSES:
        errors = Counter(class_id for pair in pairs if pair[0] != pair[1] for class_id in pair)
        shown = {class_id for class_id, _ in errors.most_common(_CLASSES)}

    def name(class_id: int) -> str:
        # DVC writes names into a script of its page: no text of a data set may end that.
        return terminal.printable(classes[class_id]).translate({60: "‹", 62: "›"}) if class_id in shown else _OTHERS

    return [(name(label), name(answer)) for label, answer in pairs]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    files.write_bytes(path, stream.getvalue().encode())
