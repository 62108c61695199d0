"""What a run costs, by arithmetic on what was measured: numbers in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

from teachonce.core import config, state_files
from teachonce.format import layout, schema
from teachonce.student import checkpoint
from teachonce.tools.estimate import measure

_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Workload:
    """How many images and views there are."""

    train: int
    """Count of training images."""
    val: int
    """Count of validation images; each is one view."""
    aug_seeds: int
    """Views of each training image in the cache."""


@dataclass(frozen=True, slots=True)
class StudentWork:
    """What each of some students has to do that differ in nothing that takes time."""

    names: tuple[str, ...]
    """Names of these students in params.yaml."""
    distils: bool
    """Whether they learn from the teacher."""
    steps: int
    """Steps of a run."""
    batch: int
    """Views of a step, over all processes."""
    views: int
    """Views of a run; where a pass ends in padding, fewer than steps × batch."""
    seeds: int
    """Aug seeds with which it would never see a view twice."""
    processes: int
    """Training processes that share a batch."""
    weights_bytes: int
    """Bytes of the network's weights."""
    rate: measure.Throughput
    """Speed of one training process."""


class StudentPrice(config.Model):
    """What one of some equal students costs."""

    names: tuple[str, ...]
    """Names of these students in params.yaml."""
    rate: measure.Throughput
    """Measured speed of one training process."""
    processes: int
    """Training processes that share a batch; each is taken to be as fast as the measured one."""
    batch: int
    """Views of a step."""
    steps: int
    """Steps of a run."""
    views: int
    """Views of a run."""
    hours: float
    """Hours of training from the cache."""
    live_hours: float
    """Hours more with a teacher in the loop: its forward passes alone, on the same devices; 0 for labels alone."""


class RowSize(config.Model):
    """What rows of one kind take, before compression."""

    form: str
    """What is kept of a row, in words: `k 10, flat tail`."""
    configured: bool
    """Whether it is the one that the cache will have."""
    bytes_a_view: int
    """Bytes of a row."""
    bytes: dict[int, int]
    """Bytes of both stores' rows, by aug seeds of a training image."""


class Estimate(config.Model):
    """The price of everything in params.yaml."""

    device: str
    """Processors and cores that it was measured on."""
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
    """Views of both stores."""
    cache_hours: float
    """Hours of the cache stage."""
    students: tuple[StudentPrice, ...]
    """Prices of the students, in the order of params.yaml."""
    hours: float
    """Hours of the cache stage and all students, one after the other."""
    live_hours: float
    """Hours of all students with the teacher in the loop and no cache stage."""
    pays_after: float | None
    """So many distilled students would cost as much live teaching as the cache stage takes; None where none distils."""
    sizes: tuple[RowSize, ...]
    """Size of the cache, by what is kept of a row."""
    canary_bytes: int
    """Bytes of the one view a tar that is kept whole, before compression; of any row and count of seeds the same."""
    checkpoint_bytes: int
    """Most bytes of all students' checkpoints, without curves: two a student, and one that is being written."""
    notes: tuple[str, ...]
    """What is extrapolated or left out."""


def estimate(
    data: Workload,
    recipe: schema.Recipe,
    *,
    cache_rate: measure.Throughput,
    forward_rate: measure.Throughput,
    work: Sequence[StudentWork],
    device: str,
    here: int,
    tars: int,
    ks: Sequence[int],
    notes: tuple[str, ...] = (),
) -> Estimate:
    """Put the price together.

    Args:
        data: how many images and views.
        recipe: what a row of the cache means.
        cache_rate: speed of the cache stage.
        forward_rate: speed of the teacher's bare forward pass.
        work: what the students have to do, those of one speed together.
        device: what the speeds were measured on.
        here: training images that there are.
        tars: of both splits.
        ks: kept classes of the rows whose size is set beside that of the configured one.
        notes: what is extrapolated or left out.
    """
    views = data.train * data.aug_seeds + data.val
    hours = views / cache_rate.views_s / _SECONDS
    students = tuple(_student(student, forward_rate.views_s) for student in work)
    train_hours = sum(student.hours * len(student.names) for student in students)
    live_hours = [student.live_hours for student in students for _ in student.names if student.live_hours]
    seed_counts = sorted({data.aug_seeds, *(student.seeds for student in work)})
    # Live teaching is paid for by each distilled student anew, the cache once: it pays off when the mean student's live
    # hours, times the count of students, reach the hours of the cache stage.
    return Estimate(
        device=device,
        train=data.train,
        here=here,
        val=data.val,
        aug_seeds=data.aug_seeds,
        cache_stage=cache_rate,
        forward=forward_rate,
        cache_views=views,
        cache_hours=hours,
        students=students,
        hours=hours + train_hours,
        live_hours=train_hours + sum(live_hours),
        pays_after=hours * len(live_hours) / sum(live_hours) if live_hours else None,
        sizes=_sizes(recipe, data, seed_counts, ks),
        canary_bytes=tars * 3 * recipe.teacher.size**2,
        checkpoint_bytes=_checkpoints(work),
        notes=notes,
    )


def _student(work: StudentWork, teacher_views_s: float) -> StudentPrice:
    # By steps, since a padded step takes as long as a full one; a live teacher is asked for the views alone.
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
    sizes = [checkpoint.COPIES * student_work.weights_bytes for student_work in work for _ in student_work.names]
    # Taken to train one after the other: only one checkpoint is being written at a time, at worst the largest.
    return len(state_files.NAMES) * sum(sizes) + max(sizes, default=0)


def _sizes(recipe: schema.Recipe, data: Workload, aug_seeds: Sequence[int], ks: Sequence[int]) -> tuple[RowSize, ...]:
    """Sizes of the configured rows, of whole rows and of flat tails, for some counts of seeds.

    Args:
        recipe: what the configured rows mean.
        data: how many images and views.
        aug_seeds: counts of aug seeds.
        ks: kept classes of the flat tails; a k that is not below the count of classes is left out.
    """
    recipes = {_describe_row(recipe): recipe}
    for k in ("all", *(k for k in ks if k < recipe.teacher.num_classes)):
        variant = recipe.model_copy(update={"k": k, "tail": "none" if k == "all" else "flat"})
        recipes.setdefault(_describe_row(variant), variant)
    return tuple(
        _size(description, variant, data, aug_seeds, configured=variant is recipe)
        for description, variant in recipes.items()
    )


def _size(
    description: str, recipe: schema.Recipe, data: Workload, aug_seeds: Sequence[int], *, configured: bool
) -> RowSize:
    row_bytes = layout.bytes_per_view(recipe)
    by_seeds = {seeds: row_bytes * (data.train * seeds + data.val) for seeds in aug_seeds}
    return RowSize(form=description, configured=configured, bytes_a_view=row_bytes, bytes=by_seeds)


def _describe_row(recipe: schema.Recipe) -> str:
    if recipe.k == "all":
        return "k all"
    if isinstance(recipe.tail, schema.TransformTail):
        return f"k {recipe.k}, tail of rank {recipe.tail.rank}"
    return f"k {recipe.k}, flat tail"
