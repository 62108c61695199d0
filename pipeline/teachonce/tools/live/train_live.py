"""A student with the teacher in the loop, on the very views that a cache would hold: what a cache is measured against.

Views, order, loss and weights are those of `student.train_cached` with whole rows, but for rounding: a network's logits
depend in their last bits on the batch that a view stands in.
"""

from dataclasses import dataclass
from pathlib import Path

from teachonce.core import errors
from teachonce.format import schema
from teachonce.shards import index
from teachonce.student import loader, process_group, student_config, student_run
from teachonce.teacher import predictor, teacher_network
from teachonce.tools.live import live_rows
from teachonce.views import views_config

MODULE = "teachonce/tools/live/train_live.py"
"""This one, whose code changes the weights."""


@dataclass(frozen=True, slots=True)
class LivePaths:
    """Where a run reads and writes."""

    shards: str | Path
    """Folder of shards, or its URL."""
    teacher: Path
    """The teacher's folder."""
    scratch: Path
    """Parent of the runs' checkpoints."""
    out: Path
    """The student's folder."""
    curves: Path
    """DVCLive's folder."""


def train_with_teacher(
    name: str,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    views: views_config.ViewsConfig,
    paths: LivePaths,
) -> dict[str, object] | None:
    """Train one student and write its folder and curves.

    Args:
        name: of the student, for messages.
        settings: model and recipe.
        student: kind of distillation.
        views: what the teacher is asked.
        paths: where.

    Returns:
        As `student_run.run`.

    Raises:
        ConfigError: the student asks no teacher, the model cannot be made, or teacher and shards do not fit.
        StoppedError: a signal asked for it; all is saved.
    """
    return student_run.run(
        f"live: {name}",
        lambda team: _prepared(name, settings, student, views, paths=paths, team=team),
        settings,
        student,
        out=student_run.Out(paths.scratch, paths.out, paths.curves, (paths.shards, paths.teacher)),
        module=MODULE,
    )


def _prepared(
    name: str,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    views: views_config.ViewsConfig,
    *,
    paths: LivePaths,
    team: process_group.Team,
) -> student_run.Run:
    if student.kind == "none":
        key = f"params.yaml: students.{name}"
        cure = "It asks no teacher: teachonce train"
        raise errors.ConfigError.for_value(key, "kind", "soft or hard", "none", cure)
    shards, known = index.read(paths.shards), teacher_network.read_identity(paths.teacher)
    if known.classes_sha256 != schema.classes_sha256(shards.index.classes):
        cure = "Train or choose the teacher for these shards: dvc repro teacher"
        raise errors.ConfigError.for_value(
            paths.teacher, "classes", "those of the shards", f"{known.num_classes} others", cure
        )
    student_run.require_labels(name, student, shards)
    length = student_run.length(shards, views.policy, settings, team)
    plan = loader.Plan(
        shards=paths.shards,
        cache=loader.Live(views.policy, known.size),
        size=settings.size,
        batch_size=settings.batch_size,
        lanes=settings.lanes,
        buffer=settings.buffer,
        passes=length.passes,
        aug_seeds=views.aug_seeds,
        seed=student.seed,
        accept=(),
        read=loader.digest(shards, None, views.aug_seeds),
    )
    recipe = schema.Recipe(teacher=known, policy=views.policy, k="all", tail="none").model_dump(mode="json")
    teacher = predictor.Predictor(teacher_network.load(paths.teacher, team.device), known, team.device)
    return student_run.Run(
        shards=shards,
        policy=views.policy,
        plan=plan,
        length=length,
        identity={"recipe": recipe},
        record={"cache": recipe, "cache_fingerprint": None, "accepted": (), "tau_beyond_cache": None},
        answer=live_rows.LiveTeacher(teacher, settings.accumulate),
    )
