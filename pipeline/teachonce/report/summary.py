"""`summary.json` beside the page: the numbers of the printed table; nothing in it differs between two equal runs."""

from typing import Literal

from teachonce.core import config
from teachonce.evaluate import evaluation_record
from teachonce.format import schema
from teachonce.report import disagreements, load_metrics, seed_spread


class StudentSummary(config.Model):
    """One student of the table."""

    knobs: evaluation_record.Knobs
    """Its settings in params.yaml."""
    heads: dict[str, evaluation_record.HeadMetrics]
    """How good its answers are, by reading."""


class CacheFacts(config.Model):
    """What the teacher's answers take, and how close they are to its softmax."""

    views: int
    """Count of training views: rows of the store."""
    bytes_a_view: float
    """Measured size of the training store by view."""
    raw_bytes_a_view: int
    """Bytes of a row before compression."""
    whole_bytes_a_view: int
    """Size of a row of all logits as float32: 4 bytes a class."""
    kept: str
    """Classes kept of each row: a number, or `all`."""
    coefficients: int = 0
    """Of each row, for the other classes; 0 where their mass is spread evenly, or rows are whole."""
    fidelity: dict[str, dict[str, float]]
    """Distances to the teacher's full softmax by `k=…,tau=…`; empty where rows are whole."""


class Summary(config.Model):
    """All numbers of the table."""

    format: Literal[2] = 2
    """Version of this file's fields."""
    headline: tuple[str, ...] = ()
    """The result in sentences: first what was reached, then how sure that is."""
    images: int
    """Count of validation images."""
    unlabelled: int = 0
    """How many of them have no label: accuracies leave these out."""
    classes: int
    """Count of classes that are told apart."""
    order: tuple[str, ...]
    """Names of the students in the order of params.yaml."""
    teacher: evaluation_record.Accuracy
    """How good the teacher is on the same images."""
    students: dict[str, StudentSummary]
    """Settings and scores by student."""
    groups: tuple[seed_spread.StudentGroup, ...]
    """The same, those that differ only in their seed put together."""
    cache: CacheFacts
    """What the training store takes."""
    disagreement: dict[str, dict[str, float]]
    """Share of images on which two answers differ."""

    @property
    def labelled(self) -> int:
        """Validation images with a label: the n of every accuracy."""
        return self.images - self.unlabelled


def from_metrics(
    metrics: load_metrics.StageMetrics,
    groups: tuple[seed_spread.StudentGroup, ...],
    recipe: schema.Recipe,
    matrix: disagreements.Matrix,
) -> Summary:
    """The table's numbers, from what the stages recorded.

    Args:
        metrics: what all stages recorded.
        groups: the students, with those together that differ only in their seed.
        recipe: what a row of the training store means.
        matrix: how often answers differ.
    """
    first = next(iter(metrics.students.values()))
    store = metrics.stores.train
    whole_bytes = 4 * first.classes
    coefficients = recipe.tail.rank if isinstance(recipe.tail, schema.TransformTail) else 0
    # Top-k rows: a float16 and a class id of 2 bytes (4 above 65,535 classes) by class kept, one float32, one byte a
    # coefficient.
    id_bytes = 2 if first.classes <= 65_535 else 4
    row_bytes = whole_bytes if recipe.k == "all" else recipe.k * (2 + id_bytes) + 4 + coefficients
    return Summary(
        images=first.images,
        unlabelled=first.unlabelled,
        classes=first.classes,
        order=tuple(metrics.students),
        teacher=first.teacher,
        students={
            name: StudentSummary(knobs=evaluation.student, heads=evaluation.heads)
            for name, evaluation in metrics.students.items()
        },
        groups=groups,
        cache=CacheFacts(
            views=store.views,
            bytes_a_view=store.bytes_a_view,
            raw_bytes_a_view=row_bytes,
            whole_bytes_a_view=whole_bytes,
            kept=str(recipe.k),
            coefficients=coefficients,
            fidelity=store.fidelity,
        ),
        disagreement=matrix.as_dict(),
    )
