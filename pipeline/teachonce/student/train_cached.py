"""A student from shards and cache: refuse what does not belong together, then run."""

import logging
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import errors
from teachonce.format import row_targets
from teachonce.shards import index
from teachonce.store import compatibility, fingerprint, store_reader, tau_range
from teachonce.student import loader, process_group, student_config, student_run
from teachonce.views import views_config

_LOG = logging.getLogger(__name__)
_FIRST_TARS = 2
"""Tars whose canaries replay before the first step; the others' do as they stream by."""
MODULE = "teachonce/student/train_cached.py"
"""This one, whose code changes the weights."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a run reads and writes."""

    shards: str | Path
    """Folder of shards, or its URL."""
    cache: str | Path
    """Store of the training split, or its URL."""
    scratch: Path
    """Parent of the runs' checkpoints."""
    out: Path
    """The student's folder."""
    curves: Path
    """DVCLive's folder."""


def train(
    name: str,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    views: views_config.ViewsConfig,
    paths: Paths,
) -> dict[str, object] | None:
    """Train one student and write its folder and curves.

    Args:
        name: of the student, for messages.
        settings: model and recipe.
        student: kind of distillation.
        views: what the cache must have been made for.
        paths: where.

    Returns:
        As `student_run.run`.

    Raises:
        IdentityError: shards, cache and views do not belong together.
        ConfigError: the model cannot be made, the ranks cannot share the lanes, or the student would learn from labels
            that nobody gave.
        StoppedError: a signal asked for it; all is saved.
    """
    return student_run.run(
        f"train: {name}",
        lambda team: _prepared(name, settings, student, views, paths=paths, team=team),
        settings,
        student,
        out=student_run.Out(paths.scratch, paths.out, paths.curves, (paths.shards, paths.cache)),
        module=MODULE,
    )


def _prepared(
    name: str,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    views: views_config.ViewsConfig,
    *,
    paths: Paths,
    team: process_group.Team,
) -> student_run.Run:
    """Refuse what does not belong together, on the first rank, and what cannot be shared out; else what to do."""
    shards = index.read(paths.shards)
    cache = store_reader.open(paths.cache)
    accepted = _require(cache, shards, views, student) if team.first else ()
    if "tars" in student.accept:
        shards = compatibility.restrict_to_cached(cache, shards, "train")
    student_run.require_labels(name, student, shards)
    policy = cache.recipe.policy
    # Fewer than asked where `accept` says so.
    aug_seeds = min(views.aug_seeds, cache.extent.aug_seeds) // policy.repeats * policy.repeats
    if not aug_seeds:
        found, cure = min(views.aug_seeds, cache.extent.aug_seeds), "Ask for as many, or make it again: dvc repro cache"
        condition = f"at least {policy.repeats}, the repeats of its policy"
        raise errors.IdentityError.for_value(cache.path, "aug_seeds", condition, found, cure)
    length = student_run.length(shards, policy, settings, team)
    plan = loader.Plan(
        shards=paths.shards,
        cache=paths.cache,
        size=settings.size,
        batch_size=settings.batch_size,
        lanes=settings.lanes,
        buffer=settings.buffer,
        passes=length.passes,
        aug_seeds=aug_seeds,
        seed=student.seed,
        accept=student.accept,
        read=loader.digest(shards, cache, aug_seeds),
    )
    recipe = cache.recipe.model_dump(mode="json")
    return student_run.Run(
        shards=shards,
        policy=policy,
        plan=plan,
        length=length,
        tail=row_targets.tail_decoder(cache.recipe, cache.basis),
        identity={"read": plan.read},
        record={
            "cache": recipe,
            "cache_fingerprint": fingerprint.cache_digest(cache),
            "accepted": accepted,
            "tau_beyond_cache": _beyond(cache, student) if team.first else None,
        },
    )


def _require(
    cache: store_reader.Cache, shards: index.Shards, views: views_config.ViewsConfig, student: student_config.Student
) -> tuple[str, ...]:
    """Refuse what does not belong together; the refusals that the student accepts."""
    lines = compatibility.require_compatible(
        cache, shards, "train", compatibility.Requirements(views.policy, views.aug_seeds), student.accept
    )
    most = cache.recipe.teacher.num_classes - 1 if cache.recipe.k == "all" else cache.recipe.k
    if student.k is not None and student.k > most:
        raise errors.IdentityError.for_value(
            cache.path,
            "k",
            f"at least the {student.k} asked",
            f"at most {most}",
            "Ask for less, or make it again: dvc repro cache",
        )
    kept = compatibility.restrict_to_cached(cache, shards, "train")
    # What is accepted is recorded, so that then all of them are looked at first.
    tars = len(kept.index.of_split("train")) if "view_drift" in student.accept else _FIRST_TARS
    drifts, checked = compatibility.replay_first_canaries(cache, kept, "train", tars, student.accept)
    if not drifts:
        return lines
    error = compatibility.drift_error(cache, drifts, checked)
    if "view_drift" not in student.accept:
        raise error
    return lines + compatibility.log_accepted([str(error)])


def _beyond(cache: store_reader.Cache, student: student_config.Student) -> str | None:
    """What is said, and recorded, of a tau that the cache does not carry."""
    if student.kind != "soft" or student.tau is None:
        return None
    found = tau_range.tau_warning(cache.fidelity, cache.recipe, k=student.k, tau=student.tau, bound=student.max_tv)
    if found:
        _LOG.warning("%s: %s", cache.path, found)
    return found
