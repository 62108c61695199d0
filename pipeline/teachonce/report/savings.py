"""What all students took with the cache, and what they would have taken with the teacher in the loop."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from teachonce.report import load_metrics


@dataclass(frozen=True, slots=True)
class WallTimes:
    """Wall times in seconds, of whole runs: where an earlier run had done a part, the last one's time is scaled up."""

    cache_s: float
    """The cache stage, once."""
    train_s: float
    """All students."""
    teacher_s: float
    """The teacher's answers to every view that the distilled students learned from, at the cache stage's rate."""
    once: int
    """Views that the teacher answered for the cache."""
    live: int
    """Views that the distilled students together would have asked it."""
    distilled: int
    """How many students distil."""

    @property
    def cached_s(self) -> float:
        """As it was done."""
        return self.cache_s + self.train_s

    @property
    def live_s(self) -> float:
        """As it would have been."""
        return self.train_s + self.teacher_s


def compare_wall_times(
    costs: Sequence[load_metrics.StageCost], students: Collection[str], distilled: Collection[str]
) -> WallTimes | None:
    """Add up what the stages cost.

    Args:
        costs: of the stages.
        students: names of all of them.
        distilled: names of those that learn from the teacher.

    Returns:
        None where a cost is not here, or the last run of a stage did nothing anew, and so has no time to go by.
    """
    by_stage = {cost.stage: cost for cost in costs}
    training = [f"train {name}" for name in students]
    if not {"cache", *training} <= by_stage.keys():
        return None
    cache, trained = by_stage["cache"].facts, [by_stage[stage] for stage in training]
    views, share = _cached(cache)
    parts = [_anew(cost.facts) for cost in trained]
    if not share or not all(parts):
        return None
    cache_s = by_stage["cache"].wall_s / share
    live = sum(by_stage[f"train {name}"].facts.get("views", 0) for name in distilled)
    return WallTimes(
        cache_s=cache_s,
        train_s=sum(cost.wall_s / part for cost, part in zip(trained, parts, strict=True)),
        teacher_s=live * cache_s / max(views, 1),
        once=cache.get("train views", 0),
        live=live,
        distilled=len(distilled),
    )


def _cached(facts: dict[str, int]) -> tuple[int, float]:
    """Views of both stores, and the share of them that the last run computed."""
    views, anew = 0, 0.0
    for split in ("train", "val"):
        computed, reused = (facts.get(f"{split} units {word}", 0) for word in ("computed", "reused"))
        views += facts.get(f"{split} views", 0)
        anew += facts.get(f"{split} views", 0) * computed / max(computed + reused, 1)
    return views, anew / max(views, 1)


def _anew(facts: dict[str, int]) -> float:
    """Share of a student's steps that its last run did."""
    steps = facts.get("steps", 0)
    return (steps - facts.get("resumed at step", 0)) / max(steps, 1)
