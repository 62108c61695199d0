"""A student with the teacher in the loop, on the very views that a cache would hold: what a cache is measured against.

Views, order, loss and weights are those of `student.train_cached` with whole rows, but for rounding: a network's logits
depend in their last bits on the batch that a view stands in.
"""

from pathlib import Path

from teachonce.core import errors
from teachonce.format import schema
from teachonce.shards import index
from teachonce.student import process_group, student_record, student_run, student_spec
from teachonce.teacher import predictor, teacher_network
from teachonce.tools.live import live_rows
from teachonce.views import views_config

MODULE = "teachonce/tools/live/train_live.py"
"""This module: the code that it imports can change the weights, and is part of a run's name."""


def train_with_teacher(
    student: student_spec.Student,
    views: views_config.ViewsConfig,
    shards: str | Path,
    teacher: Path,
    folders: student_run.RunFolders,
) -> dict[str, object] | None:
    """Train one student and write its folder and curves.

    Args:
        student: its entry in params.yaml and its training configuration.
        views: policy of the views that the teacher answers, and how many of each image.
        shards: folder of shards, or its URL.
        teacher: the teacher's folder.
        folders: folders that are written.

    Returns:
        As `StudentRun.train`.

    Raises:
        ConfigError: the student asks no teacher, the model cannot be made, or teacher and shards do not fit.
        StoppedError: a signal asked for it; all is saved.
    """
    destinations = folders.as_outputs(student.spec, (shards, teacher))
    with process_group.join_ranks() as world:
        with world.sync_errors():
            # One rank looks, and its refusal ends all: the others would say the same again.
            for output in destinations if world.is_main else ():
                output.require_replaceable()
            identity = _require_teacher(student, shards, teacher)
            # What a cache of whole rows would say: the record of a live student can be compared with a cached one's.
            recipe = schema.Recipe(teacher=identity, policy=views.policy, k="all", tail="none")
            source = live_rows.LiveRows(
                shards,
                recipe,
                aug_seeds=views.aug_seeds,
                teacher=predictor.Predictor(teacher_network.load(teacher, world.device), identity, world.device),
                parts=student.config.accumulate,
            )
        record = student_record.TeacherRecord(cache=recipe, cache_fingerprint=None, accepted=(), tau_beyond_cache=None)
        run = student_run.StudentRun(student, source, destinations, folders.scratch, MODULE)
        return run.train(world, record, f"live: {student.name}")


def _require_teacher(student: student_spec.Student, shards: str | Path, teacher: Path) -> schema.Teacher:
    """Refuse a student that asks no teacher, and a teacher of other classes; else who the teacher is."""
    if student.spec.kind == "none":
        key = f"params.yaml: students.{student.name}"
        cure = "It asks no teacher: teachonce train"
        raise errors.ConfigError.for_value(key, "kind", "soft or hard", "none", cure)
    classes, identity = index.read(shards).index.classes, teacher_network.read_identity(teacher)
    if identity.classes_sha256 != schema.classes_sha256(classes):
        cure = "Train or choose the teacher for these shards: dvc repro teacher"
        raise errors.ConfigError.for_value(
            teacher, "classes", "those of the shards", f"{identity.num_classes} others", cure
        )
    return identity
