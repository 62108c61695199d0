"""What accuracy costs: weights and speed of the teacher and of each kind of student."""

import statistics
from dataclasses import dataclass

from teachonce.core import run_record
from teachonce.report import load_metrics, seed_spread, summary


@dataclass(frozen=True, slots=True)
class Network:
    """One network, or several that differ in their seed alone."""

    name: str
    """Of the group of students; or `teacher`."""
    colour: int | None
    """Position of the group; None for the teacher."""
    weights: int
    """Count of single weights."""
    score: float | None
    """Top-1 of the answer that stands for it; None where no image has a label."""
    images_a_second: float | None
    """Of its forward pass; None where it was not measured as the others were."""
    speedup: float | None
    """Its images a second by the teacher's."""


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """All networks, and what their speed was measured with."""

    networks: tuple[Network, ...]
    """Students, then the teacher."""
    speed: run_record.ForwardSpeed | None
    """Of one of those whose speed is shown, for what all of them have in common; None where none is shown."""


def weigh_networks(numbers: summary.Summary, metrics: load_metrics.StageMetrics) -> Tradeoff:
    """Weights, speed and accuracy of all networks; speeds only of those that were measured in the same way."""
    speeds = {cost.stage: cost.forward for cost in metrics.costs if cost.forward is not None}
    reference = speeds.get("teacher") or next(iter(speeds.values()), None)
    rates = {
        stage: speed.images_a_second
        for stage, speed in speeds.items()
        if reference is not None and speed.is_comparable(reference)
    }
    teacher_rate = rates.get("teacher")
    students = []
    for position, group in enumerate(numbers.groups):
        of_seeds = [rate for name in group.members if (rate := rates.get(f"evaluate {name}"))]
        rate = statistics.median(of_seeds) if of_seeds else None
        students.append(
            Network(
                name=group.name,
                colour=position,
                weights=metrics.students[group.members[0]].parameters,
                score=seed_spread.main_top1(group).mean if group.top1 else None,
                images_a_second=rate,
                speedup=rate / teacher_rate if rate and teacher_rate else None,
            )
        )
    teacher = Network("teacher", None, metrics.teacher.parameters, numbers.teacher.top1, teacher_rate, None)
    return Tradeoff((*students, teacher), reference if rates else None)
