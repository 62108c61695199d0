"""One run, whoever gives the answers: from the first step, or the last checkpoint, to the student's folder."""

import contextlib
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from teachonce.base import closure, device_memory, errors, hashing, locks, outputs, record, sealed
from teachonce.cache import target
from teachonce.shards import index
from teachonce.student import batching, config, feed, lanes, learner, loop, model, ranks, schedule, sharing, start
from teachonce.views.policy import Policy

_LOG = logging.getLogger(__name__)
_TURN_S = 5.0
_STUDENT = outputs.Kind(
    "an earlier student",
    model.RECORD,
    b'"recipe"',
    re.compile("|".join(map(re.escape, (model.EMA, model.RAW, "config.json")))),
)
_CURVES = outputs.Kind("earlier curves", "metrics.json", b'"step"', re.compile(r"plots/metrics/.+\.tsv"))
EXEMPT = {
    "teachonce/base/closure.py": "digests code",
    "teachonce/base/device_memory.py": "words a refusal",
    "teachonce/base/errors.py": "words refusals",
    "teachonce/base/fetch.py": "fetches files, whose sha256 is compared",
    "teachonce/base/files.py": "puts bytes on a disk",
    "teachonce/base/locks.py": "waits for other processes",
    "teachonce/base/outputs.py": "puts folders in their places",
    "teachonce/base/places.py": "fetches files, whose sha256 is compared",
    "teachonce/base/plain_data.py": "reads settings, which are compared by value",
    "teachonce/base/problems.py": "words refusals",
    "teachonce/base/progress.py": "draws progress bars",
    "teachonce/base/record.py": "names versions, and what a stage cost",
    "teachonce/base/sealed.py": "compares files with their digests",
    "teachonce/base/spelling.py": "words refusals",
    "teachonce/base/terminal.py": "shows text",
    "teachonce/base/waiting.py": "says what is waited for",
    "teachonce/shards/effort.py": "refuses images that cost too much, and changes none",
    "teachonce/shards/keys.py": "judges and shows names, and changes none",
}
"""Modules that change no weight, each with the reason."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is known before the first step."""

    shards: index.Shards
    """The images."""
    policy: Policy
    """Of their views."""
    plan: feed.Plan
    """What determines the batches."""
    length: schedule.Schedule
    """Steps."""
    identity: Mapping[str, object]
    """What changes the weights, beside recipe, student and code."""
    record: Mapping[str, object]
    """What the student's record tells of who taught it."""
    tail: target.Sketch | None = None
    """What the cache's coded tail stands on."""
    answer: Callable[[batching.Batch], batching.Batch] = field(default=lambda batch: batch)
    """Gives a batch the rows that no cache gave it."""


@dataclass(frozen=True, slots=True)
class Out:
    """Where a run writes."""

    scratch: Path
    """Parent of the runs' checkpoints."""
    student: Path
    """The student's folder."""
    curves: Path
    """DVCLive's folder."""
    inputs: tuple[str | Path, ...]
    """What the run reads."""

    def folders(self, student: config.Student) -> tuple[outputs.Output, outputs.Output]:
        """The student's folder and that of the curves."""
        begin = Path(student.start.path) if student.start else None
        inputs = (*self.inputs, begin)
        return (
            outputs.Output(self.student, _STUDENT, inputs, (self.scratch, self.curves)),
            outputs.Output(self.curves, _CURVES, inputs, (self.scratch, self.student), "--curves"),
        )


def run(
    label: str, prepare: Callable[[ranks.Team], Run], settings: config.StudentConfig, student: config.Student,
    *, out: Out, module: str,
) -> dict[str, object] | None:  # fmt: skip
    """Train one student and write its folder and curves.

    Args:
        label: on the progress bar.
        prepare: refuses what does not belong together, on the first rank, and what cannot be shared out.
        settings: model and recipe.
        student: kind of distillation.
        out: where to.
        module: file of the one that asks, relative to the project's root: what it imports changes the weights.

    Returns:
        Facts for the cost record: steps and views, and how many of them an earlier, interrupted run had done. None on a
        rank that is not the first, which leaves writing to it.

    Raises:
        ConfigError: the model cannot be made, or the weights to begin with are refused.
        StoppedError: a signal asked for it; all is saved.
    """
    with ranks.joined() as team, contextlib.ExitStack() as held:
        with team.together():
            for folder in out.folders(student) if team.first else ():
                folder.require_replaceable()
            one = prepare(team)
            feed.require_room(one.plan, workers=settings.workers, ranks=team.size)
            begin = _begin(student, one, team)
            facts = {"start": begin.facts if begin else None}
            one = replace(one, identity={**one.identity, **facts}, record={**one.record, **facts})
            scratch = out.scratch / _name(one, settings, student, module)
        _take_turn(scratch, team, held)
        with team.together(), _room(settings):
            who = learner.make(
                settings, student, num_classes=len(one.shards.index.classes), length=one.length, team=team,
                tail=one.tail, begin=begin,
            )  # fmt: skip
            del begin  # its tensors have been copied
        with _room(settings):
            done = loop.run(
                who, one.plan, settings, student, answer=one.answer, length=one.length, scratch=scratch, label=label
            )
        with team.together():
            if team.first:
                _hand_over(who, one, settings, student, out=out, curves=scratch / "curves")
    return _facts(who, one, done, team) if team.first else None


def length(shards: index.Shards, policy: Policy, settings: config.StudentConfig, team: ranks.Team) -> schedule.Schedule:
    """The length of a run, where the batch fits the policy and the ranks.

    Raises:
        ConfigError: it does not fit.
    """
    errors.refuse(sharing.problems(settings, policy, team.size, "student"))
    views = sharing.views_an_atom(policy)
    steps = lanes.steps(sum(feed.atoms(shards, policy)), settings.batch_size // views, settings.lanes)
    return schedule.of(settings, steps, policy.repeats)


def require_labels(name: str, student: config.Student, shards: index.Shards) -> None:
    """Refuse a student that learns from labels where no training image has one.

    Raises:
        ConfigError: it does.
    """
    if student.alpha == 1 or shards.index.labelled("train"):
        return
    key = f"params.yaml: students.{name}"
    cure = "Let the teacher's answers be the only signal (token: false gives them the only head), or label images"
    if student.kind == "none":
        condition = "soft or hard, with alpha 1, where no training image has a label"
        raise errors.ConfigError(errors.refusal(key, "kind", condition, "none", cure))
    condition = "1 where no training image has a label"
    raise errors.ConfigError(errors.refusal(key, "alpha", condition, student.alpha, cure))


def _take_turn(scratch: Path, team: ranks.Team, held: contextlib.ExitStack) -> None:
    """Wait until no other process is in the run's folder; then, where it has ended, there is nothing left to do."""
    lock = locks.folder_lock(scratch)
    held.callback(lock.close)
    # In turns, so that no rank waits for the first one longer than ranks wait for one another.
    while True:
        with team.together():
            is_held = not team.first or lock.wait(scratch, limit_s=_TURN_S)
        if team.sums([is_held])[0] == team.size:
            return


def _room(settings: config.StudentConfig) -> contextlib.AbstractContextManager[None]:
    return device_memory.bounded("student", "batch_size", settings.batch_size, "Lower it, or raise accumulate")


def _begin(student: config.Student, one: Run, team: ranks.Team) -> start.Start | None:
    """Weights to begin with, where the student names some."""
    if student.start is None:
        return None
    begin = start.read(student.start, one.shards.index.classes, by_place="classes" in student.accept)
    if team.first and not begin.same_classes:
        _LOG.warning("%s: has other classes, so that the heads begin with initial weights", begin.path)
    return begin


def _hand_over(
    who: learner.Learner, one: Run, settings: config.StudentConfig, student: config.Student, *, out: Out, curves: Path
) -> None:
    """Write the student's folder and its curves."""
    folder, curves_folder = out.folders(student)
    with folder.draft() as draft:
        weights = {model.EMA: who.ema.module, model.RAW: who.network}
        model.save(draft, weights, settings, student, len(one.shards.index.classes))
        sealed.write_json(
            draft / model.RECORD,
            {
                "student": student.model_dump(mode="json"),
                "recipe": settings.model_dump(mode="json"),
                "weights_sha256": hashing.sha256_file(draft / model.EMA),
                "raw_weights_sha256": hashing.sha256_file(draft / model.RAW),
                "aug_seeds": one.plan.aug_seeds,
                **one.record,
                "arithmetic": {
                    "device": who.device.type,
                    "precision": settings.precision,
                    "compiled": settings.compile,
                    "deterministic": settings.deterministic or who.device.type == "cpu",
                    # Never, on a GPU either (`arithmetic.exact_float32`).
                    "tf32": False,
                },
                "versions": record.versions(),
            },
        )
    with curves_folder.draft() as draft:
        shutil.copytree(curves, draft, dirs_exist_ok=True)


def _facts(who: learner.Learner, one: Run, done: loop.Ended, team: ranks.Team) -> dict[str, object]:
    rows, total = one.shards.index.nsamples("train"), one.length.total
    views = rows * one.policy.repeats * total / one.length.steps_a_pass
    return {
        "steps": total, "views": round(views), "resumed_at_step": done.resumed_at_step, "ranks": team.size,
        "parameters": sum(parameter.numel() for parameter in who.network.parameters()),
    }  # fmt: skip


def _name(one: Run, settings: config.StudentConfig, student: config.Student, module: str) -> str:
    """A name that changes with anything that changes the weights: configuration, code, answers, shards.

    But for rounding: the count of ranks is not among it, so that others can go on.
    """
    return hashing.digest(
        {
            "settings": settings.model_dump(mode="json", exclude=set(config.FREE)),
            "student": student.model_dump(mode="json", exclude={"max_tv", "start"}),
            "aug_seeds": one.plan.aug_seeds,
            "code": closure.digest(module, frozenset(EXEMPT)),
            "shards": [shard.sha256 for shard in one.shards.index.of_split("train")],
            **one.identity,
        }
    )
