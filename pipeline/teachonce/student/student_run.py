"""One run, whatever its source of rows: from the first step, or the last checkpoint, to the student's folder."""

import contextlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import device_memory, errors, files, hashing, locks, outputs, run_record
from teachonce.shards import index, sample_reader
from teachonce.student import (
    fine_tuning,
    kept_weights,
    loader,
    process_group,
    row_source,
    run_identity,
    schedule,
    student_model,
    student_record,
    student_spec,
    trainer,
    training_loop,
)

_LOG = logging.getLogger(__name__)
_TURN_S = 5.0
_STUDENT = outputs.FolderKind(
    "an earlier student",
    student_record.NAME,
    b'"recipe"',
    re.compile("|".join([*map(re.escape, (student_model.EMA, student_model.RAW, "config.json")), kept_weights.FILE])),
)
_CURVES = outputs.FolderKind("earlier curves", "metrics.json", b'"step"', re.compile(r"plots/metrics/.+\.tsv"))


@dataclass(frozen=True, slots=True)
class RunFolders:
    """Folders that a run writes: its checkpoints meanwhile, the student and its curves at the end."""

    scratch: Path
    """Parent of the runs' checkpoints."""
    student: Path
    """The student's folder."""
    curves: Path
    """Folder of DVCLive's files."""

    def as_outputs(
        self, spec: student_spec.StudentSpec, inputs: tuple[str | Path, ...]
    ) -> tuple[outputs.Output, outputs.Output]:
        """The student's folder and that of the curves, apart from what the run reads."""
        inputs = (*inputs, Path(spec.start.path)) if spec.start else inputs
        return (
            outputs.Output(self.student, _STUDENT, inputs, (self.scratch, self.curves)),
            outputs.Output(self.curves, _CURVES, inputs, (self.scratch, self.student), "--curves"),
        )


@dataclass(frozen=True, slots=True)
class StudentRun:
    """A student, what teaches it, and where it is written."""

    student: student_spec.Student
    """What is trained."""
    source: row_source.RowSource
    """Of samples and rows."""
    destinations: tuple[outputs.Output, outputs.Output]
    """The student's folder and that of the curves."""
    scratch: Path
    """Parent of the runs' checkpoints."""
    module: str
    """File of the one that asks, relative to the source root: what it imports changes the weights."""

    def train(
        self, world: process_group.World, teacher: student_record.TeacherRecord, label: str
    ) -> dict[str, object] | None:
        """Train from the last checkpoint, or from the start, and write both folders.

        Args:
            world: all ranks come by here.
            teacher: what the student's record tells of who taught it.
            label: on the progress bar.

        Returns:
            Facts for the cost record: steps and views, and how many of them an earlier, interrupted run had done. None
            on a rank that is not the first, which leaves writing to it.

        Raises:
            ConfigError: the model cannot be made, the weights to begin with are refused, the ranks cannot share a
                batch, or the student would learn from labels that nobody gave.
            StoppedError: a signal asked for it; all is saved.
        """
        student, source = self.student, self.source
        with contextlib.ExitStack() as lock:
            with world.sync_errors():
                require_labels(student, source.shards)
                length = schedule.plan_schedule(student.config, source.shards, source.policy, world.size)
                loader.require_loader_memory(source, student, world.size)
                initial = self._initial_weights(world)
                # By their bytes, not by their path: the same weights elsewhere are the same run.
                start = initial.record() if initial else None
                name = run_identity.folder_name(student, source, start, self.module)
            folder = self.scratch / name
            # Before the checkpoint is looked for: two processes in one folder would each go on from the other's, and
            # step aside what the other is about to rename.
            _take_turn(folder, world, lock)
            with world.sync_errors(), _within_memory(student):
                student_trainer = trainer.Trainer(
                    student,
                    num_classes=len(source.shards.index.classes),
                    length=length,
                    world=world,
                    tail=source.tail,
                    initial=initial,
                )
                del initial  # its tensors have been copied
            with _within_memory(student):
                resumed_at_step = training_loop.train_to_end(student_trainer, source, folder, label)
            with world.sync_errors():
                if world.is_main:
                    self._write(student_trainer, teacher, start, run=folder)
        return self._cost(student_trainer, resumed_at_step) if world.is_main else None

    def _initial_weights(self, world: process_group.World) -> fine_tuning.InitialWeights | None:
        """Weights to begin with, where the student names some."""
        spec = self.student.spec
        if spec.start is None:
            return None
        classes = self.source.shards.index.classes
        initial = fine_tuning.read(spec.start, classes, by_place="classes" in spec.accept)
        if world.is_main and not initial.same_classes:
            _LOG.warning("%s: has other classes, so that the heads begin with initial weights", initial.path)
        return initial

    def _write(
        self,
        student_trainer: trainer.Trainer,
        teacher: student_record.TeacherRecord,
        start: student_record.StartRecord | None,
        *,
        run: Path,
    ) -> None:
        """Write the student's folder and its curves."""
        student, config = self.student, self.student.config
        student_output, curves_output = self.destinations
        weights = {student_model.EMA: student_trainer.ema.module, student_model.RAW: student_trainer.network}
        device = student_trainer.device.type
        with student_output.draft() as draft:
            # The record last, with the digests of what lies there: a folder without it is no student.
            student_model.save(draft, weights, student, len(self.source.shards.index.classes))
            record = student_record.StudentRecord(
                cache=teacher.cache,
                cache_fingerprint=teacher.cache_fingerprint,
                accepted=teacher.accepted,
                tau_beyond_cache=teacher.tau_beyond_cache,
                weights_sha256=hashing.sha256_file(draft / student_model.EMA),
                raw_weights_sha256=hashing.sha256_file(draft / student_model.RAW),
                kept_weights=kept_weights.hand_over(run, draft, student_trainer.length),
                student=student.spec,
                recipe=config,
                start=start,
                aug_seeds=self.source.aug_seeds,
                arithmetic=student_record.ArithmeticRecord(
                    device=device,
                    precision=config.precision,
                    compiled=config.compile,
                    deterministic=config.deterministic or device == "cpu",
                    tf32=False,
                ),
                versions=run_record.library_versions(),
            )
            student_record.write_record(draft, record)
        with curves_output.draft() as draft:
            files.copy_folder(run / "curves", draft)

    def _cost(self, student_trainer: trainer.Trainer, resumed_at_step: int) -> dict[str, object]:
        length = student_trainer.length
        images = self.source.shards.index.nsamples("train")
        return {
            "steps": length.total,
            "views": round(images * self.source.policy.repeats * length.total / length.steps_a_pass),
            "resumed_at_step": resumed_at_step,
            "ranks": student_trainer.world.size,
            "parameters": sum(parameter.numel() for parameter in student_trainer.network.parameters()),
        }


def require_labels(student: student_spec.Student, shards: index.Shards) -> None:
    """Refuse a student that learns from labels where no training image has one.

    Raises:
        ConfigError: it does.
        DataError: a tar is not as indexed, where the index says that none has.
    """
    spec = student.spec
    # At alpha 1 the label's part has weight 0, and no gradient: what is missing there is missed by nobody.
    if (spec.kind != "none" and spec.alpha == 1) or sample_reader.count_labelled(shards, "train"):
        return
    key = f"params.yaml: students.{student.name}"
    cure = "Let the teacher's answers be the only signal (token: false gives them the only head), or label images"
    if spec.kind == "none":
        condition = "soft or hard, with alpha 1, where no training image has a label"
        raise errors.ConfigError.for_value(key, "kind", condition, "none", cure)
    condition = "1 where no training image has a label"
    raise errors.ConfigError.for_value(key, "alpha", condition, spec.alpha, cure)


def _take_turn(folder: Path, world: process_group.World, stack: contextlib.ExitStack) -> None:
    """Wait until no other process is in the run's folder; then, where it has ended, there is nothing left to do."""
    lock = locks.folder_lock(folder)
    stack.callback(lock.close)
    # In turns, so that no rank waits for the first one longer than ranks wait for one another.
    while True:
        with world.sync_errors():
            is_ours = not world.is_main or lock.wait(folder, limit_s=_TURN_S)
        if world.all_sum([is_ours])[0] == world.size:
            return


def _within_memory(student: student_spec.Student) -> contextlib.AbstractContextManager[None]:
    batch_size = student.config.batch_size
    return device_memory.refuse_out_of_memory("student", "batch_size", batch_size, "Lower it, or raise accumulate")
