"""One run, whoever gives the answers: from the first step, or the last checkpoint, to the student's folder."""

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from teachonce.core import (
    device_memory,
    errors,
    files,
    hashing,
    import_closure,
    locks,
    outputs,
    run_record,
    sealed_files,
)
from teachonce.format import row_targets
from teachonce.shards import index, sample_reader
from teachonce.student import (
    batch_shares,
    batching,
    fine_tuning,
    lanes,
    loader,
    process_group,
    schedule,
    student_config,
    student_model,
    trainer,
    training_loop,
)
from teachonce.views.view_policy import Policy

_LOG = logging.getLogger(__name__)
_TURN_S = 5.0
_STUDENT = outputs.FolderKind(
    "an earlier student",
    student_model.RECORD,
    b'"recipe"',
    re.compile("|".join(map(re.escape, (student_model.EMA, student_model.RAW, "config.json")))),
)
_CURVES = outputs.FolderKind("earlier curves", "metrics.json", b'"step"', re.compile(r"plots/metrics/.+\.tsv"))
EXEMPT = {
    "teachonce/core/import_closure.py": "digests code",
    "teachonce/core/device_memory.py": "words a refusal",
    "teachonce/core/errors.py": "words refusals",
    "teachonce/core/remote_files.py": "fetches files, whose sha256 is compared",
    "teachonce/core/files.py": "puts bytes on a disk",
    "teachonce/core/locks.py": "waits for other processes",
    "teachonce/core/outputs.py": "puts folders in their places",
    "teachonce/core/storage.py": "fetches files, whose sha256 is compared",
    "teachonce/core/yaml_reader.py": "reads settings, which are compared by value",
    "teachonce/core/validation_messages.py": "words refusals",
    "teachonce/core/progress.py": "draws progress bars",
    "teachonce/core/run_record.py": "names versions, and what a stage cost",
    "teachonce/core/sealed_files.py": "compares files with their digests",
    "teachonce/core/spelling.py": "words refusals",
    "teachonce/core/terminal.py": "shows text",
    "teachonce/core/waiting.py": "says what is waited for",
    "teachonce/shards/decode_limits.py": "refuses images that cost too much, and changes none",
    "teachonce/shards/decoder_messages.py": "silences decoders, and changes no pixel",
    "teachonce/shards/sample_keys.py": "judges and shows names, and changes none",
}
"""Modules that change no weight, each with the reason."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is known before the first step."""

    shards: index.Shards
    """The images."""
    policy: Policy
    """Of their views."""
    plan: loader.Plan
    """What determines the batches."""
    length: schedule.Schedule
    """Steps."""
    identity: Mapping[str, object]
    """What changes the weights, beside recipe, student and code."""
    record: Mapping[str, object]
    """What the student's record tells of who taught it."""
    tail: row_targets.TailDecoder | None = None
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

    def folders(self, student: student_config.Student) -> tuple[outputs.Output, outputs.Output]:
        """The student's folder and that of the curves."""
        begin = Path(student.start.path) if student.start else None
        inputs = (*self.inputs, begin)
        return (
            outputs.Output(self.student, _STUDENT, inputs, (self.scratch, self.curves)),
            outputs.Output(self.curves, _CURVES, inputs, (self.scratch, self.student), "--curves"),
        )


def run(
    label: str,
    prepare: Callable[[process_group.Team], Run],
    settings: student_config.StudentConfig,
    student: student_config.Student,
    *,
    out: Out,
    module: str,
) -> dict[str, object] | None:
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
    with process_group.joined() as team, contextlib.ExitStack() as held:
        with team.together():
            for folder in out.folders(student) if team.first else ():
                folder.require_replaceable()
            one = prepare(team)
            loader.require_room(one.plan, workers=settings.workers, ranks=team.size)
            begin = _begin(student, one, team)
            facts = {"start": begin.facts if begin else None}
            one = replace(one, identity={**one.identity, **facts}, record={**one.record, **facts})
            scratch = out.scratch / _name(one, settings, student, module)
        _take_turn(scratch, team, held)
        with team.together(), _room(settings):
            who = trainer.make(
                settings,
                student,
                num_classes=len(one.shards.index.classes),
                length=one.length,
                team=team,
                tail=one.tail,
                begin=begin,
            )
            del begin  # its tensors have been copied
        with _room(settings):
            done = training_loop.run(
                who, one.plan, settings, student, answer=one.answer, length=one.length, scratch=scratch, label=label
            )
        with team.together():
            if team.first:
                _hand_over(who, one, settings, student, out=out, curves=scratch / "curves")
    return _facts(who, one, done, team) if team.first else None


def length(
    shards: index.Shards, policy: Policy, settings: student_config.StudentConfig, team: process_group.Team
) -> schedule.Schedule:
    """The length of a run, where the batch fits the policy and the ranks.

    Raises:
        ConfigError: it does not fit.
    """
    errors.raise_problems(batch_shares.problems(settings, policy, team.size, "student"))
    views = batch_shares.views_an_atom(policy)
    steps = lanes.steps(sum(loader.atoms(shards, policy)), settings.batch_size // views, settings.lanes)
    return schedule.of(settings, steps, policy.repeats)


def require_labels(name: str, student: student_config.Student, shards: index.Shards) -> None:
    """Refuse a student that learns from labels where no training image has one.

    Raises:
        ConfigError: it does.
        DataError: a tar is not as indexed, where the index says that none has.
    """
    if student.alpha == 1 or sample_reader.count_labelled(shards, "train"):
        return
    key = f"params.yaml: students.{name}"
    cure = "Let the teacher's answers be the only signal (token: false gives them the only head), or label images"
    if student.kind == "none":
        condition = "soft or hard, with alpha 1, where no training image has a label"
        raise errors.ConfigError.for_value(key, "kind", condition, "none", cure)
    condition = "1 where no training image has a label"
    raise errors.ConfigError.for_value(key, "alpha", condition, student.alpha, cure)


def _take_turn(scratch: Path, team: process_group.Team, held: contextlib.ExitStack) -> None:
    """Wait until no other process is in the run's folder; then, where it has ended, there is nothing left to do."""
    lock = locks.folder_lock(scratch)
    held.callback(lock.close)
    # In turns, so that no rank waits for the first one longer than ranks wait for one another.
    while True:
        with team.together():
            is_held = not team.first or lock.wait(scratch, limit_s=_TURN_S)
        if team.sums([is_held])[0] == team.size:
            return


def _room(settings: student_config.StudentConfig) -> contextlib.AbstractContextManager[None]:
    return device_memory.refuse_out_of_memory(
        "student", "batch_size", settings.batch_size, "Lower it, or raise accumulate"
    )


def _begin(student: student_config.Student, one: Run, team: process_group.Team) -> fine_tuning.Start | None:
    """Weights to begin with, where the student names some."""
    if student.start is None:
        return None
    begin = fine_tuning.read(student.start, one.shards.index.classes, by_place="classes" in student.accept)
    if team.first and not begin.same_classes:
        _LOG.warning("%s: has other classes, so that the heads begin with initial weights", begin.path)
    return begin


def _hand_over(
    who: trainer.Learner,
    one: Run,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    *,
    out: Out,
    curves: Path,
) -> None:
    """Write the student's folder and its curves."""
    folder, curves_folder = out.folders(student)
    with folder.draft() as draft:
        weights = {student_model.EMA: who.ema.module, student_model.RAW: who.network}
        student_model.save(draft, weights, settings, student, len(one.shards.index.classes))
        sealed_files.write_with_digest(
            draft / student_model.RECORD,
            {
                "student": student.model_dump(mode="json"),
                "recipe": settings.model_dump(mode="json"),
                "weights_sha256": hashing.sha256_file(draft / student_model.EMA),
                "raw_weights_sha256": hashing.sha256_file(draft / student_model.RAW),
                "aug_seeds": one.plan.aug_seeds,
                **one.record,
                "arithmetic": {
                    "device": who.device.type,
                    "precision": settings.precision,
                    "compiled": settings.compile,
                    "deterministic": settings.deterministic or who.device.type == "cpu",
                    # Never, on a GPU either (`arithmetic.use_exact_float32`).
                    "tf32": False,
                },
                "versions": run_record.library_versions(),
            },
        )
    with curves_folder.draft() as draft:
        files.copy_folder(curves, draft)


def _facts(who: trainer.Learner, one: Run, done: training_loop.Ended, team: process_group.Team) -> dict[str, object]:
    rows, total = one.shards.index.nsamples("train"), one.length.total
    views = rows * one.policy.repeats * total / one.length.steps_a_pass
    return {
        "steps": total,
        "views": round(views),
        "resumed_at_step": done.resumed_at_step,
        "ranks": team.size,
        "parameters": sum(parameter.numel() for parameter in who.network.parameters()),
    }


def _name(one: Run, settings: student_config.StudentConfig, student: student_config.Student, module: str) -> str:
    """A name that changes with anything that changes the weights: configuration, code, answers, shards.

    But for rounding: the count of ranks is not among it, so that others can go on.
    """
    return hashing.json_digest(
        {
            "settings": settings.model_dump(mode="json", exclude=set(student_config.FREE)),
            "student": student.model_dump(mode="json", exclude={"max_tv", "start"}),
            "aug_seeds": one.plan.aug_seeds,
            "code": import_closure.code_digest(module, frozenset(EXEMPT)),
            "shards": [shard.sha256 for shard in one.shards.index.of_split("train")],
            **one.identity,
        }
    )
