"""What a run costs, by arithmetic on what was measured: numbers in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

from teachonce.core import config
from teachonce.format import layout, schema
from teachonce.student import checkpoint
from teachonce.tools.estimate import measure

_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Workload:
    """How much there is to do."""

    train: int
    """Training images."""
    val: int
    """Validation images; each is one view."""
    aug_seeds: int
    """Views of each training image in the cache."""


@dataclass(frozen=True, slots=True)
class StudentWork:
    """What students that differ in nothing that takes time have to do, each."""

    names: tuple[str, ...]
    """Theirs, in params.yaml."""
    distils: bool
    """Whether they learn from the teacher."""
    steps: int
    """Of a run."""
    batch: int
    """Views of a step, over all processes."""
    views: int
    """Of a run; where a pass ends in padding, fewer than steps × batch."""
    seeds: int
    """Aug seeds with which it would never see a view twice."""
    processes: int
    """That share a batch."""
    weights_bytes: int
    """Of the network."""
    rate: measure.Throughput
    """Of one process."""


class StudentPrice(config.Model):
    """What one of some equal students costs."""

    names: tuple[str, ...]
    """Theirs."""
    rate: measure.Throughput
    """Measured, of one process."""
    processes: int
    """That share a batch; each as fast as the measured one."""
    batch: int
    """Views of a step."""
    steps: int
    """Of a run."""
    views: int
    """Of a run."""
    hours: float
    """From the cache."""
    live_hours: float
    """More with a teacher in the loop: its forward passes alone, on the same devices; 0 where it is not asked."""


class RowSize(config.Model):
    """What rows of a form take, before compression."""

    form: str
    """Which."""
    configured: bool
    """Whether it is the one that the cache will have."""
    bytes_a_view: int
    """Of a row."""
    bytes: dict[int, int]
    """Of both stores' rows, by aug seeds of a training image."""


class Estimate(config.Model):
    """The price of everything in params.yaml."""

    device: str
    """What it was measured on."""
    train: int
    """Training images that are priced."""
    here: int
    """Training images that there are."""
    val: int
    """Validation images."""
    aug_seeds: int
    """Views of a training image."""
    cache_stage: measure.Throughput
    """Decode, render, forward, pack and write, by all processes of the stage."""
    forward: measure.Throughput
    """The forward pass alone, of one process."""
    cache_views: int
    """Of both stores."""
    cache_hours: float
    """Of the cache stage."""
    students: tuple[StudentPrice, ...]
    """In the order of params.yaml."""
    hours: float
    """Of the cache stage and all students, one after the other."""
    live_hours: float
    """Of all students with the teacher in the loop and no cache stage."""
    pays_after: float | None
    """So many distilled students would cost as much live teaching as the cache stage takes; None where none distils."""
    sizes: tuple[RowSize, ...]
    """Of the cache, by form of row."""
    canary_bytes: int
    """Of one view a tar that is remembered whole, before compression; the same for all forms and counts of seeds."""
    checkpoint_bytes: int
    """Of all students' checkpoints at most, but for curves: two of each student, and one that is being written."""
    notes: tuple[str, ...]
    """What is extrapolated or left out."""


def estimate(
    data: Workload,
    recipe: schema.Recipe,
    *,
    staged: measure.Throughput,
    forward: measure.Throughput,
    work: Sequence[StudentWork],
    device: str,
    here: int,
    tars: int,
    ks: Sequence[int],
    notes: tuple[str, ...] = (),
) -> Estimate:
    """Put the price together.

    Args:
        data: what there is to do.
        recipe: what a row of the cache means.
        staged: rate of the cache stage.
        forward: rate of the bare forward pass.
        work: of the students.
        device: what the rates are of.
        here: training images that there are.
        tars: of both splits.
        ks: kept classes of the forms of row that are set beside the configured one.
        notes: what to tell beside.
    """
    views = data.train * data.aug_seeds + data.val
    hours = views / staged.views_s / _SECONDS
    students = tuple(_student(one, forward.views_s) for one in work)
    own = sum(one.hours * len(one.names) for one in students)
    live = [one.live_hours for one in students for _ in one.names if one.live_hours]
    seeds = sorted({data.aug_seeds, *(one.seeds for one in work)})
    return Estimate(
        device=device,
        train=data.train,
        here=here,
        val=data.val,
        aug_seeds=data.aug_seeds,
        cache_stage=staged,
        forward=forward,
        cache_views=views,
        cache_hours=hours,
        students=students,
        hours=hours + own,
        live_hours=own + sum(live),
        pays_after=hours * len(live) / sum(live) if live else None,
        sizes=_sizes(recipe, data, seeds, ks),
        canary_bytes=tars * 3 * recipe.teacher.size**2,
        checkpoint_bytes=_checkpoints(work),
        notes=notes,
    )


def _student(work: StudentWork, teacher_views_s: float) -> StudentPrice:
    # A padded step takes as long as a full one.
    hours = work.steps * work.batch / work.processes / work.rate.views_s / _SECONDS
    live = work.views / work.processes / teacher_views_s / _SECONDS if work.distils else 0.0
    return StudentPrice(
        names=work.names,
        rate=work.rate,
        processes=work.processes,
        batch=work.batch,
        steps=work.steps,
        views=work.views,
        hours=hours,
        live_hours=live,
    )


def _checkpoints(work: Sequence[StudentWork]) -> int:
    sizes = [checkpoint.COPIES * one.weights_bytes for one in work for _ in one.names]
    return len(checkpoint.NAMES) * sum(sizes) + max(sizes, default=0)


def _sizes(recipe: schema.Recipe, data: Workload, aug_seeds: Sequence[int], ks: Sequence[int]) -> tuple[RowSize, ...]:
    """The configured form of row, whole rows and flat tails, for some counts of seeds.

    Args:
        recipe: the configured one.
        data: how many images.
        aug_seeds: which counts.
        ks: kept classes of the others; those that there are no more classes than are left out.
    """
    forms = {_form(recipe): recipe}
    for k in ("all", *(k for k in ks if k < recipe.teacher.num_classes)):
        other = recipe.model_copy(update={"k": k, "tail": "none" if k == "all" else "flat"})
        forms.setdefault(_form(other), other)
    return tuple(_size(form, one, data, aug_seeds, configured=one is recipe) for form, one in forms.items())


def _size(form: str, recipe: schema.Recipe, data: Workload, aug_seeds: Sequence[int], *, configured: bool) -> RowSize:
    row = layout.bytes_per_view(recipe)
    by_seeds = {seeds: row * (data.train * seeds + data.val) for seeds in aug_seeds}
    return RowSize(form=form, configured=configured, bytes_a_view=row, bytes=by_seeds)


def _form(recipe: schema.Recipe) -> str:
    if recipe.k == "all":
        return "k all"
    if isinstance(recipe.tail, schema.TransformTail):
        return f"k {recipe.k}, tail of rank {recipe.tail.rank}"
    return f"k {recipe.k}, flat tail"
