"""A student from shards and cache: refuse what does not belong together, then train."""

import logging
from pathlib import Path

from teachonce.core import errors
from teachonce.store import compatibility, fingerprint, store_reader, tau_range
from teachonce.student import process_group, row_source, student_record, student_run, student_spec
from teachonce.views import views_config

_LOG = logging.getLogger(__name__)
_FIRST_TARS = 2
"""Tars whose canaries replay before the first step; the others' do as they stream by."""
MODULE = "teachonce/student/train_cached.py"
"""This one, whose code changes the weights."""


def train_from_cache(
    student: student_spec.Student,
    views: views_config.ViewsConfig,
    shards: str | Path,
    cache: str | Path,
    folders: student_run.RunFolders,
) -> dict[str, object] | None:
    """Train one student and write its folder and curves.

    Args:
        student: what, and how.
        views: what the cache must have been made for.
        shards: folder of shards, or its URL.
        cache: store of the training split, or its URL.
        folders: where to.

    Returns:
        As `StudentRun.train`.

    Raises:
        IdentityError: shards, cache and views do not belong together.
        ConfigError: the model cannot be made, the ranks cannot share the lanes, or the student would learn from labels
            that nobody gave.
        StoppedError: a signal asked for it; all is saved.
    """
    spec = student.spec
    source = row_source.CachedRows(shards, cache, aug_seeds=views.aug_seeds, accept=spec.accept)
    destinations = folders.as_outputs(spec, (shards, cache))
    with process_group.join_ranks() as world:
        with world.sync_errors():
            # One rank looks, and its refusal ends all: the others would say the same again.
            for output in destinations if world.is_main else ():
                output.require_replaceable()
            accepted = _require_compatible(source, views, spec) if world.is_main else ()
            source.require_block()
            teacher = student_record.TeacherRecord(
                cache=source.cache.recipe,
                cache_fingerprint=fingerprint.cache_digest(source.cache),
                accepted=accepted,
                tau_beyond_cache=_warn_beyond_cache(source.cache, spec) if world.is_main else None,
            )
        run = student_run.StudentRun(student, source, destinations, folders.scratch, MODULE)
        return run.train(world, teacher, f"train: {student.name}")


def _require_compatible(
    source: row_source.CachedRows, views: views_config.ViewsConfig, spec: student_spec.StudentSpec
) -> tuple[str, ...]:
    """Refuse what does not belong together; the refusals that the student accepts."""
    shards, cache = source.indexed, source.cache
    lines = compatibility.require_compatible(
        cache, shards, "train", compatibility.Requirements(views.policy, views.aug_seeds), spec.accept
    )
    most = cache.recipe.teacher.num_classes - 1 if cache.recipe.k == "all" else cache.recipe.k
    if spec.kind == "soft" and spec.k is not None and spec.k > most:
        raise errors.IdentityError.for_value(
            cache.path,
            "k",
            f"at least the {spec.k} asked",
            f"at most {most}",
            "Ask for less, or make it again: dvc repro cache",
        )
    # Each rank replays the canaries of what it streams; here they are looked at before any work.
    rows_of = compatibility.restrict_to_cached(cache, shards, "train")
    # What is accepted is recorded, so that then all of them are looked at first.
    tars = len(rows_of.index.of_split("train")) if "view_drift" in spec.accept else _FIRST_TARS
    drifts, checked = compatibility.replay_first_canaries(cache, rows_of, "train", tars, spec.accept)
    if not drifts:
        return lines
    error = compatibility.drift_error(cache, drifts, checked)
    if "view_drift" not in spec.accept:
        raise error
    return lines + compatibility.log_accepted([str(error)])


def _warn_beyond_cache(cache: store_reader.Cache, spec: student_spec.StudentSpec) -> str | None:
    """What is said, and recorded, of a tau that the cache does not carry."""
    if spec.kind != "soft":
        return None
    warning = tau_range.tau_warning(cache.fidelity, cache.recipe, k=spec.k, tau=spec.tau, bound=spec.max_tv)
    if warning:
        _LOG.warning("%s: %s", cache.path, warning)
    return warning
