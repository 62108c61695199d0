"""Students that differ only in their seed, as one: mean and spread of what each of them reached."""

import itertools
import statistics
from collections.abc import Mapping, Sequence

import pydantic

from teachonce.core import config
from teachonce.evaluate import evaluation_record
from teachonce.report import convergence, load_metrics


class Spread(config.Model):
    """A number over the students of a group."""

    mean: float
    """Mean over the students of the group."""
    sd: float | None = None
    """Sample standard deviation, of n − 1; none for a single student."""


class StudentGroup(config.Model):
    """Students whose entries in params.yaml are equal but for the seed."""

    name: str
    """What all of its students' names begin with."""
    members: tuple[str, ...] = pydantic.Field(min_length=1)
    """Their names, in the order of params.yaml."""
    top1: dict[str, Spread]
    """Share of images that are right, by reading; empty where no image has a label."""
    agreement: Spread
    """Share of images on which the main reading gives the teacher's class."""
    kl: Spread
    """Mean KL(teacher ‖ student) of the main reading in nats."""
    last_quarter: dict[str, Spread]
    """What a part of the loss still fell by, by curve (`convergence.last_quarter_drop`)."""


def group_students(entries: Mapping[str, object], metrics: load_metrics.StageMetrics) -> tuple[StudentGroup, ...]:
    """Put students together whose entries differ in the seed alone, in the order of params.yaml.

    Args:
        entries: what params.yaml says of each student, by name.
        metrics: what all stages recorded.
    """
    # A list, not a dict: entries are nested maps, which have no hash.
    groups: list[tuple[object, list[str]]] = []
    for name, entry in entries.items():
        settings = {key: value for key, value in entry.items() if key != "seed"} if isinstance(entry, dict) else entry
        members = next((members for group_settings, members in groups if group_settings == settings), None)
        if members is None:
            groups.append((settings, [name]))
        else:
            members.append(name)
    return tuple(_group(members, metrics) for _, members in groups)


def main_head(heads: Mapping[str, evaluation_record.HeadMetrics]) -> evaluation_record.HeadMetrics:
    """The answer that stands for a student: of both heads where it has two."""
    return heads.get("both", heads["class"])


def main_top1(group: StudentGroup) -> Spread:
    """Accuracy of the answer that stands for a group; only where some image has a label."""
    return group.top1.get("both", group.top1["class"])


def _group(members: Sequence[str], metrics: load_metrics.StageMetrics) -> StudentGroup:
    heads = [metrics.students[name].heads for name in members]
    curves = [metrics.curves[name] for name in members]
    return StudentGroup(
        name=common_name(members),
        members=tuple(members),
        top1={
            reading: _spread(shares)
            for reading in heads[0]
            if (shares := [share for student_heads in heads if (share := student_heads[reading].top1) is not None])
        },
        agreement=_spread([main_head(student_heads).agreement for student_heads in heads]),
        kl=_spread([main_head(student_heads).kl for student_heads in heads]),
        last_quarter={
            curve: _spread([convergence.last_quarter_drop(student_curves[curve]) for student_curves in curves])
            for curve in convergence.CURVES
            if curve in curves[0]
        },
    )


def common_name(names: Sequence[str]) -> str:
    """What all names begin with: `soft-1` and `soft-2` are `soft`."""
    common = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    # Names that share no letter leave the first one to stand for all.
    return "".join(letters[0] for letters in common).rstrip("-_") or names[0]


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=statistics.fmean(values), sd=statistics.stdev(values) if len(values) > 1 else None)
