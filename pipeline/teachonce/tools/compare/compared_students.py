"""The trained students of all revisions, each of them once.

Shapes: N validation images that have a label, or all where none has.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teachonce.core import errors, hashing
from teachonce.evaluate import evaluation_record, predictions
from teachonce.report import load_metrics
from teachonce.shards import index
from teachonce.tools.compare import locked_stages, snapshot


@dataclass(frozen=True, slots=True)
class Answers:
    """Whether a student's answers are right, image by image."""

    images: str
    """Digest of the images and their labels, in their order: only equal ones can be paired."""
    right_N: npt.NDArray[np.bool_]
    """bool (N,): whether it gives the label; without labels, whether it gives the teacher's class."""
    has_labels: bool
    """Whether right is by label."""


@dataclass(frozen=True, slots=True)
class ComparedStudent:
    """One trained student."""

    name: str
    """In params.yaml."""
    revision: str
    """The first of the revisions that have it."""
    knobs: Mapping[locked_stages.Knob, locked_stages.Scalar]
    """All that decided how it was trained."""
    evaluation: evaluation_record.Evaluation
    """What is measured of it."""
    answers: Answers | None
    """Of its main reading, both heads where it has two; none where its predictions are not here."""
    curves: Mapping[str, load_metrics.Curve]
    """Training curves by name, those that are here."""
    costs: Mapping[str, float]
    """Wall time in seconds by stage, of those that are here."""

    @property
    def seed(self) -> int:
        """Of its initial weights, and of the order of the images."""
        return self.evaluation.student.seed

    @property
    def images(self) -> str | None:
        """Digest of the images that it answered; none where its predictions are not here."""
        return self.answers.images if self.answers else None


class Collection:
    """Students of some revisions, and what is to be said of those that are left out."""

    def __init__(self) -> None:
        self.students: list[ComparedStudent] = []
        """Each trained student once, in the order of the revisions."""
        self.notes: list[str] = []
        """What is not here, a line each."""
        self._digests: set[tuple[str, str]] = set()

    def add(self, results: snapshot.Snapshot, paths: snapshot.ResultPaths) -> None:
        """Add the students of a revision, but for those that another one has had already.

        Args:
            results: of the revision.
            paths: where they lie in it.
        """
        self.notes += _notes(results)
        for name in results.students:
            if not _is_recorded(results, paths, name):
                continue
            try:
                student = _read(results, paths, name)
            except errors.TeachonceError as error:
                self.notes.append(f"{results.revision.name}: {name} is left out, for its record {error.what}")
                continue
            # By weights and answers: a run of DVC repeats what its settings change, and has all other students too.
            digest = student.evaluation.weights_sha256, student.evaluation.predictions_sha256
            if digest not in self._digests:
                self._digests.add(digest)
                self.students.append(student)


def _is_recorded(results: snapshot.Snapshot, paths: snapshot.ResultPaths, name: str) -> bool:
    has_run = all(f"{stage}@{name}" in results.lock for stage in ("train", "evaluate"))
    return has_run and (results.folder / paths.record(name)).exists()


def _notes(results: snapshot.Snapshot) -> Iterator[str]:
    """What is not here of a revision, and how to get it."""
    revision, lock = results.revision, results.lock
    if results.missing:
        first, count = results.missing[0], len(results.missing)
        files = "1 file of its results is" if count == 1 else f"{count} files of its results are"
        them = f"here: {first}. Fetch it" if count == 1 else f"here, the first {first}. Fetch them"
        yield f"{revision.name}: {files} not in DVC's cache {them}: {revision.fetch_command}"
    absent = [name for name in results.students if f"evaluate@{name}" not in lock]
    if absent:
        yield f"{revision.name}: not evaluated: {', '.join(absent)}"
    changed = [
        name
        for name, entry in results.students.items()
        if name not in absent and entry != lock.entry(f"evaluate@{name}", name)
    ]
    if changed:
        yield f"{revision.name}: params.yaml has changed since these ran, shown as they ran: {', '.join(changed)}"


def _read(results: snapshot.Snapshot, paths: snapshot.ResultPaths, name: str) -> ComparedStudent:
    folder = results.folder
    evaluation = load_metrics.read_model(folder / paths.record(name), evaluation_record.Evaluation)
    has_answers = (folder / paths.predictions / name / predictions.NAME).exists()
    costs = load_metrics.read_costs(folder / paths.costs, [name])
    return ComparedStudent(
        name=name,
        revision=results.revision.name,
        knobs=results.lock.knobs(f"train@{name}", name),
        evaluation=evaluation,
        answers=_answers(folder / paths.predictions / name, evaluation) if has_answers else None,
        curves=load_metrics.read_curves(folder / paths.curves / name),
        costs={cost.stage.removesuffix(f" {name}"): cost.wall_s for cost in costs},
    )


def _answers(folder: Path, evaluation: evaluation_record.Evaluation) -> Answers:
    arrays, provenance = predictions.read(folder, evaluation.predictions_sha256)
    label_N, answer_N = arrays["label"], arrays.get("both", arrays["class"])
    has_labels = bool((label_N != index.UNLABELLED).any())
    truth_N = label_N if has_labels else arrays["teacher"]
    images = [provenance.keys_crc32, provenance.classes_sha256, hashing.keys_crc32(map(str, truth_N))]
    is_counted_N = truth_N != index.UNLABELLED
    return Answers(hashing.json_digest(images), (answer_N == truth_N)[is_counted_N], has_labels)
