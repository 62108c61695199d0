"""Students by setting, and how sure their differences are: all numbers of the table and the page."""

import itertools
import statistics
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from teachonce.core import config, errors
from teachonce.evaluate import metrics, pair_discordance, significance
from teachonce.report import seed_spread
from teachonce.tools.compare import compared_students, differing_knobs, locked_stages

SEEDS = 3
"""Seeds from which on settings are compared, not students."""


class Member(config.Model):
    """A trained student of a setting."""

    name: str
    """In params.yaml."""
    revision: str
    """The first of the revisions that have it."""
    seed: int
    """Of its initial weights, and of the order of the images."""
    share: float
    """Of the validation images that it gets right."""
    train_s: float | None
    """Wall time of its training in seconds, where that is here."""
    images: str | None
    """Digest of the validation images; none where its predictions are not here."""


class Setting(config.Model):
    """Students that differ in their seed alone."""

    name: str
    """What all of their names begin with."""
    knobs: dict[str, str | int | float | bool | None]
    """Those that tell settings apart, by the name of their column."""
    members: tuple[Member, ...]
    """By seed."""
    mean: float
    """Of the members' shares."""
    sd: float | None
    """Sample standard deviation over seeds; none for a single student."""
    image_se: float
    """Standard error of the mean from the choice of the images."""
    parameters: int
    """Count of single weights."""


class Difference(config.Model):
    """How much better one setting, or its few students, does than another."""

    better: int
    """Index of the setting whose mean is higher."""
    worse: int
    """Index of the other."""
    of: Literal["settings", "students"]
    """What is compared: means over seeds, or trained students, image by image."""
    difference: float
    """Of the shares, better less worse."""
    se: float
    """Its standard error: over seeds, or over images."""
    passes: bool
    """Whether it is more than two standard errors."""
    only_better: int | None = None
    """Images that only the student of the better setting gets right."""
    only_worse: int | None = None
    """Images that only the other student gets right."""
    p: float | None = None
    """McNemar's exact p-value, two-sided; of one student each, as are the two counts."""


class Comparison(config.Model):
    """`comparison.json` beside the page."""

    format: Literal[1] = 1
    """Version of this file's fields."""
    measure: Literal["top1", "agreement"]
    """What shares are of: images whose label a student gives or, where none has a label, the teacher's class."""
    images: int
    """Count of the validation images that count; of the first student, where they differ."""
    teacher: float | None
    """The teacher's share on the images of the best student."""
    settings: tuple[Setting, ...]
    """The best first."""
    differences: tuple[Difference, ...]
    """Of all pairs of settings that answered the same images."""
    notes: tuple[str, ...]
    """What is not here, a line each."""


def compare(students: Sequence[compared_students.ComparedStudent], notes: Sequence[str]) -> Comparison:
    """Put students together by setting, and compare these.

    Args:
        students: each trained student once.
        notes: what is not here.

    Raises:
        DataError: there is no student.
    """
    if not students:
        lines = "; ".join(notes) or "no revision holds an evaluated student"
        raise errors.DataError("", f"nothing can be compared: {lines}", "Make results: dvc repro")
    measure: Literal["top1", "agreement"] = "top1" if students[0].evaluation.teacher.top1 is not None else "agreement"
    groups = sorted(_groups(students), key=lambda group: -statistics.fmean(_share(student) for student in group))
    columns = differing_knobs.name_columns(differing_knobs.find_differing([student.knobs for student in students]))
    first = students[0].evaluation
    return Comparison(
        measure=measure,
        images=first.images - (first.unlabelled if measure == "top1" else 0),
        teacher=groups[0][0].evaluation.teacher.top1,
        settings=tuple(_setting(group, columns) for group in groups),
        differences=tuple(
            difference
            for better, worse in itertools.combinations(range(len(groups)), 2)
            if (difference := _difference(groups, better, worse))
        ),
        notes=tuple(notes),
    )


def group_students(
    students: Sequence[compared_students.ComparedStudent], comparison: Comparison
) -> list[list[compared_students.ComparedStudent]]:
    """The students of each setting, in the order of the comparison."""
    by_member = {(student.name, student.revision): student for student in students}
    return [[by_member[member.name, member.revision] for member in setting.members] for setting in comparison.settings]


def _groups(
    students: Sequence[compared_students.ComparedStudent],
) -> list[list[compared_students.ComparedStudent]]:
    differing = differing_knobs.find_differing([student.knobs for student in students])
    groups: dict[tuple[object, ...], list[compared_students.ComparedStudent]] = {}
    for student in students:
        groups.setdefault((student.images, *(student.knobs.get(knob) for knob in differing)), []).append(student)
    return [sorted(group, key=lambda student: student.seed) for group in groups.values()]


def _share(student: compared_students.ComparedStudent) -> float:
    head = seed_spread.main_head(student.evaluation.heads)
    return head.agreement if head.top1 is None else head.top1


def _setting(group: Sequence[compared_students.ComparedStudent], columns: dict[locked_stages.Knob, str]) -> Setting:
    first, shares = group[0], [_share(student) for student in group]
    count = first.evaluation.images - first.evaluation.unlabelled or first.evaluation.images
    return Setting(
        name=seed_spread.common_name([student.name for student in group]),
        knobs={column: first.knobs.get(knob) for knob, column in columns.items()},
        members=tuple(
            Member(
                name=student.name,
                revision=student.revision,
                seed=student.seed,
                share=_share(student),
                train_s=student.costs.get("train"),
                images=student.images,
            )
            for student in group
        ),
        mean=statistics.fmean(shares),
        sd=statistics.stdev(shares) if len(shares) > 1 else None,
        image_se=metrics.standard_error(statistics.fmean(shares), count),
        parameters=first.evaluation.parameters,
    )


def _difference(
    groups: Sequence[Sequence[compared_students.ComparedStudent]], better: int, worse: int
) -> Difference | None:
    """Two settings compared, by their seeds where both have enough; None where they answered other images."""
    left, right = groups[better], groups[worse]
    if left[0].images is None or left[0].images != right[0].images:
        return None
    if min(len(left), len(right)) >= SEEDS:
        gap = significance.compare_means([_share(student) for student in left], [_share(student) for student in right])
        return _judge(better, worse, "settings", gap)
    # As they stand in the table, which shows means: with one seed each, this is McNemar's comparison.
    left_SN, right_SN = _right(left), _right(right)
    is_single = len(left) == len(right) == 1
    discordance = pair_discordance.count_discordant(left_SN[0], right_SN[0]) if is_single else None
    return _judge(better, worse, "students", significance.compare_paired(left_SN, right_SN), discordance)


def _judge(
    better: int,
    worse: int,
    compared: Literal["settings", "students"],
    gap: significance.Gap,
    discordance: pair_discordance.Discordance | None = None,
) -> Difference:
    return Difference(
        better=better,
        worse=worse,
        of=compared,
        difference=gap.difference,
        se=gap.se,
        passes=gap.passes,
        only_better=discordance.only_left if discordance else None,
        only_worse=discordance.only_right if discordance else None,
        p=discordance.p if discordance else None,
    )


def _right(group: Sequence[compared_students.ComparedStudent]) -> npt.NDArray[np.bool_]:
    return np.stack([student.answers.right_N for student in group if student.answers])
