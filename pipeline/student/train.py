"""A student from shards and cache: refuse what does not belong together, train, hand over."""

import contextlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.base import errors, files, hashing, record
from pipeline.cache import fingerprint, identity, reach, target
from pipeline.cache import read as cache_read
from pipeline.shards import index
from pipeline.student import config, feed, lanes, learner, loop, model, ranks, schedule
from pipeline.views import config as views_config

_LOG = logging.getLogger(__name__)
_FIRST_TARS = 2
"""Tars whose canaries replay before the first step; the others' do as they stream by."""


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


@dataclass(frozen=True, slots=True)
class _Run:
    """What is known before the first step."""

    cache: cache_read.Cache
    """The teacher's answers."""
    shards: index.Shards
    """The images that have some."""
    plan: feed.Plan
    """What determines the batches."""
    length: schedule.Schedule
    """Steps."""
    accepted: tuple[str, ...]
    """Refusals that the student accepts."""
    beyond: str | None
    """What is said of a tau that the cache does not carry."""


def train(
    name: str, settings: config.StudentConfig, student: config.Student, views: views_config.ViewsConfig, paths: Paths
) -> dict[str, object] | None:
    """Train one student and write its folder and curves.

    Args:
        name: of the student, for messages.
        settings: model and recipe.
        student: kind of distillation.
        views: what the cache must have been made for.
        paths: where.

    Returns:
        Facts for the cost record: steps and images, and how many of them an earlier, interrupted run had done. None on
        a rank that is not the first, which leaves writing to it.

    Raises:
        IdentityError: shards, cache and views do not belong together.
        ConfigError: the model cannot be made, the ranks cannot share the lanes, or the student would learn from labels
            that nobody gave.
        StoppedError: a signal asked for it; all is saved.
    """
    with ranks.joined() as team, contextlib.ExitStack() as held:
        with team.together():
            run = _prepared(name, settings, student, views, paths=paths, team=team)
            scratch = paths.scratch / _run_name(run, settings, student)
            if team.first:
                held.enter_context(files.lock(scratch))
        with team.together():
            who = learner.make(
                settings, student, num_classes=len(run.shards.index.classes), length=run.length, team=team,
                tail=target.sketch(run.cache.recipe, run.cache.basis),
            )  # fmt: skip
        done = loop.run(who, run.plan, settings, student, length=run.length, scratch=scratch, label=f"train: {name}")
        with team.together():
            if team.first:
                _hand_over(who, run, settings, student, paths=paths, curves=scratch / "curves")
    return _facts(who, run, done, team) if team.first else None


def _prepared(
    name: str, settings: config.StudentConfig, student: config.Student, views: views_config.ViewsConfig,
    *, paths: Paths, team: ranks.Team,
) -> _Run:  # fmt: skip
    """Refuse what does not belong together, on the first rank, and what cannot be shared out; else what to do."""
    shards = index.read(paths.shards)
    cache = cache_read.open(paths.cache)
    accepted = _require(cache, shards, views, student) if team.first else ()
    if "tars" in student.accept:
        shards = identity.held(cache, shards, "train")
    _require_labels(name, student, shards)
    length = _length(cache, shards, settings, team)
    repeats = cache.recipe.policy.repeats
    plan = feed.Plan(
        shards=paths.shards,
        cache=paths.cache,
        size=settings.size,
        batch_size=settings.batch_size,
        lanes=settings.lanes,
        buffer=settings.buffer,
        passes=length.passes,
        # Fewer than asked where `accept` says so.
        aug_seeds=min(views.aug_seeds, cache.extent.aug_seeds) // repeats * repeats,
        seed=student.seed,
        accept=student.accept,
    )
    return _Run(cache, shards, plan, length, accepted, _beyond(cache, student) if team.first else None)


def _hand_over(
    who: learner.Learner, run: _Run, settings: config.StudentConfig, student: config.Student, *, paths: Paths,
    curves: Path,
) -> None:  # fmt: skip
    """Write the student's folder and its curves."""
    with files.new_folder(paths.out) as draft:
        weights = {model.EMA: who.ema.module, model.RAW: who.network}
        model.save(draft, weights, settings, student, len(run.shards.index.classes))
        files.write_json(
            draft / "record.json",
            {
                "student": student.model_dump(mode="json"),
                "recipe": settings.model_dump(mode="json"),
                "weights_sha256": hashing.sha256_file(draft / model.EMA),
                "cache": run.cache.recipe.model_dump(mode="json"),
                "cache_fingerprint": fingerprint.of(run.cache.recipe, run.cache.extent),
                "aug_seeds": run.plan.aug_seeds,
                "accepted": run.accepted,
                "tau_beyond_cache": run.beyond,
                "versions": record.versions(),
            },
        )
    with files.new_folder(paths.curves) as draft:
        shutil.copytree(curves, draft, dirs_exist_ok=True)


def _facts(who: learner.Learner, run: _Run, done: loop.Ended, team: ranks.Team) -> dict[str, object]:
    rows, length = run.shards.index.nsamples("train"), run.length
    views = rows * run.cache.recipe.policy.repeats * length.total / length.steps_a_pass
    return {
        "steps": length.total, "views": round(views), "resumed_at_step": done.resumed_at_step, "ranks": team.size,
        "parameters": sum(parameter.numel() for parameter in who.network.parameters()),
    }  # fmt: skip


def _require_labels(name: str, student: config.Student, shards: index.Shards) -> None:
    """Refuse a student that learns from labels where no training image has one."""
    if student.alpha == 1 or shards.index.labelled("train"):
        return
    key = f"params.yaml: students.{name}"
    cure = "Let the teacher's answers be the only signal (token: false gives them the only head), or label images"
    if student.kind == "none":
        condition = "soft or hard, with alpha 1, where no training image has a label"
        raise errors.ConfigError(errors.refusal(key, "kind", condition, "none", cure))
    condition = "1 where no training image has a label"
    raise errors.ConfigError(errors.refusal(key, "alpha", condition, student.alpha, cure))


def _length(
    cache: cache_read.Cache, shards: index.Shards, settings: config.StudentConfig, team: ranks.Team
) -> schedule.Schedule:
    """The length of the run, where the batch fits the policy and the ranks."""
    policy = cache.recipe.policy
    views = feed.views_an_atom(policy)
    if settings.batch_size % (settings.lanes * views):
        whole = f"a multiple of {settings.lanes * views}: {settings.lanes} lanes of {views} views that stay together"
        raise errors.ConfigError(
            errors.refusal("student", "batch_size", whole, settings.batch_size, "Change it, or lanes")
        )
    streams = team.size * max(1, settings.workers)
    if settings.lanes % streams:
        whole = f"a multiple of ranks × workers, {streams}"
        raise errors.ConfigError(errors.refusal("student", "lanes", whole, settings.lanes, "Change it, or workers"))
    if settings.accumulate > (most := settings.batch_size // views // team.size):
        whole = f"at most {most}, what a rank's share of a batch can be cut into"
        raise errors.ConfigError(
            errors.refusal("student", "accumulate", whole, settings.accumulate, "Lower it, or raise batch_size")
        )
    steps = lanes.steps(sum(feed.atoms(shards, policy)), settings.batch_size // views, settings.lanes)
    return schedule.of(settings, steps, policy.repeats)


def _require(
    cache: cache_read.Cache, shards: index.Shards, views: views_config.ViewsConfig, student: config.Student
) -> tuple[str, ...]:
    """Refuse what does not belong together; the refusals that the student accepts."""
    lines = identity.require(cache, shards, "train", identity.Ask(views.policy, views.aug_seeds), student.accept)
    most = cache.recipe.teacher.num_classes - 1 if cache.recipe.k == "all" else cache.recipe.k
    if student.k is not None and student.k > most:
        raise errors.IdentityError(
            errors.refusal(
                cache.path,
                "k",
                f"at least the {student.k} asked",
                f"at most {most}",
                "Ask for less, or make it again: dvc repro cache",
            )
        )
    kept = identity.held(cache, shards, "train")
    # What is accepted is recorded, so that then all of them are looked at first.
    tars = len(kept.index.of_split("train")) if "view_drift" in student.accept else _FIRST_TARS
    drifts, checked = identity.first_canaries(cache, kept, "train", tars, student.accept)
    if not drifts:
        return lines
    message = identity.drift_message(cache, drifts, checked)
    if "view_drift" not in student.accept:
        raise errors.ViewDriftError(message)
    return lines + identity.accepted([message])


def _beyond(cache: cache_read.Cache, student: config.Student) -> str | None:
    """What is said, and recorded, of a tau that the cache does not carry."""
    if student.kind != "soft" or student.tau is None:
        return None
    found = reach.warning(cache.fidelity, cache.recipe, k=student.k, tau=student.tau, bound=student.max_tv)
    if found:
        _LOG.warning("%s: %s", cache.path, found)
    return found


def _run_name(run: _Run, settings: config.StudentConfig, student: config.Student) -> str:
    """A name that changes with anything that changes the weights: configuration, code, cache, shards.

    But for rounding: the count of ranks is not among it, so that others can go on.
    """
    return hashing.digest(
        {
            "settings": settings.model_dump(mode="json", exclude=set(config.FREE)),
            "student": student.model_dump(mode="json", exclude={"max_tv"}),
            "aug_seeds": run.plan.aug_seeds,
            "code": hashing.package_digest(("base", "shards", "views", "cache", "student")),
            "recipe": run.cache.recipe.model_dump(mode="json"),
            "extent": run.cache.extent.model_dump(mode="json"),
            "shards": [shard.sha256 for shard in run.shards.index.of_split("train")],
        }
    )
