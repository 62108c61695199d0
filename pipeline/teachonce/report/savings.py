"""What all students took with the cache, and what they would have taken with the teacher in the loop."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from teachonce.report import load_metrics


@dataclass(frozen=True, slots=True)
class WallTimes:
    """Wall times in seconds, of whole runs: where an earlier run had done a part, the last one's time is scaled up."""

    cache_s: float
    """The cache stage, which runs once for all students."""
    train_s: float
    """Training of all students, one after the other."""
    teacher_s: float
    """The teacher's answers to every view that the distilled students learned from, at the cache stage's rate."""
    cached_views: int
    """Views that the teacher answered for the cache."""
    live_views: int
    """Views that the distilled students together would have asked it."""
    distilled: int
    """How many students distil."""

    @property
    def cached_s(self) -> float:
        """Seconds of the cache stage and all training, as it was done."""
        return self.cache_s + self.train_s

    @property
    def live_s(self) -> float:
        """Seconds of all training with the teacher in the loop, and no cache."""
        return self.train_s + self.teacher_s


def compare_wall_times(
    costs: Sequence[load_metrics.StageCost], students: Collection[str], distilled: Collection[str]
) -> WallTimes | None:
    """Add up what the stages cost.

    Args:
        costs: of the stages that ran here.
        students: names of all students.
        distilled: names of the students that learn from the teacher.

    Returns:
        None where a cost is missing, or where the last run of a stage did nothing anew, and so took no time to go by.
    """
    by_stage = {cost.stage: cost for cost in costs}
    training = [f"train {name}" for name in students]
    # One missing cost would make the cached way look quicker than it was.
    if not {"cache", *training} <= by_stage.keys():
        return None
    cache, trained = by_stage["cache"].facts, [by_stage[stage] for stage in training]
    views, share = _cache_work(cache)
    parts = [_trained_share(cost.facts) for cost in trained]
    if not share or not all(parts):
        return None
    # A run that went on from an earlier one tells the time of its own part: the whole is that time by its share.
    cache_s = by_stage["cache"].wall_s / share
    live_views = sum(by_stage[f"train {name}"].facts.get("views", 0) for name in distilled)
    return WallTimes(
        cache_s=cache_s,
        train_s=sum(cost.wall_s / part for cost, part in zip(trained, parts, strict=True)),
        # At the rate of the cache stage, which decodes and renders too. A live teacher of the student's size would use
        # the views that are rendered anyway, so that this says rather too much than too little.
        teacher_s=live_views * cache_s / max(views, 1),
        cached_views=cache.get("train views", 0),
        live_views=live_views,
        distilled=len(distilled),
    )


def _cache_work(facts: dict[str, int]) -> tuple[int, float]:
    """Views of both stores, and the share of them that the last run computed."""
    views, computed_views = 0, 0.0
    for split in ("train", "val"):
        computed, reused = (facts.get(f"{split} units {word}", 0) for word in ("computed", "reused"))
        views += facts.get(f"{split} views", 0)
        computed_views += facts.get(f"{split} views", 0) * computed / max(computed + reused, 1)
    return views, computed_views / max(views, 1)


def _trained_share(facts: dict[str, int]) -> float:
    """Share of a student's steps that its last run did."""
    steps = facts.get("steps", 0)
    return (steps - facts.get("resumed at step", 0)) / max(steps, 1)
