"""What hangs on this machine: the source, files and packages that are named, room on the disk.

The stage that needs it asks again. Where that stage need not run, what is missing is a warning.
"""

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from teachonce.check.check_findings import Findings
from teachonce.check.dvc_lock import LastRuns
from teachonce.check.project_configs import LoadedConfigs
from teachonce.core import errors, hashing
from teachonce.prepare import dataset_config
from teachonce.shards import index
from teachonce.student import student_spec
from teachonce.teacher import teacher_config


@dataclass(frozen=True, slots=True)
class ArtifactPaths:
    """Where the stages' results lie, as far as a check looks at them."""

    shards: Path
    """Folder of shards."""
    students: Path
    """Folder of the students' folders."""
    scratch: Path
    """Folder of finished units."""
    lock: LastRuns
    """dvc.lock."""


def check_resources(choice: LoadedConfigs, places: ArtifactPaths, findings: Findings) -> None:
    """Look at everything that is named.

    Args:
        choice: what could be read.
        places: of results.
        findings: are given a problem for what a stage will miss, and a warning where it need not run.
    """

    def tell(stage: str, problem: errors.ConfigError) -> None:
        pulled = stage == "prepare" and not places.lock.has(stage) and (places.shards / index.NAME).is_file()
        is_needed = not pulled and not places.lock.is_settled(stage)
        (findings.problems if is_needed else findings.warnings).append(problem)

    if choice.source is not None and choice.dataset is not None:
        _source(choice.source, choice.dataset, choice.chosen.params, lambda problem: tell("prepare", problem))
    if choice.teacher is not None and isinstance(choice.teacher.weights, teacher_config.CheckpointWeights):
        _weights(choice.teacher.weights, choice.path("teacher"), lambda problem: tell("teacher", problem))
    for name, student in choice.students.items():
        if student.start is not None:
            where = f"{choice.chosen.params}: students.{name}"
            if _is_made(student.start, choice, places):
                what = "start.path is trained first, and compared with its sha256 then"
                findings.warnings.append(errors.ConfigError(where, what))
            else:
                _start(student.start, where, lambda problem, name=name: tell(f"train@{name}", problem))  # type: ignore[misc]


def _source(source: Path, data: dataset_config.Data, params: Path, tell: Callable[[errors.ConfigError], None]) -> None:
    cure = "Correct it, or pull the shards: dvc pull artifacts/shards"
    needs_folder = isinstance(data, dataset_config.ImageFolder | dataset_config.WebDataset)
    if fault := _fault(source):
        tell(errors.ConfigError.for_value(params, "source", "the folder of the images", fault, cure))
    elif needs_folder and not source.is_dir():
        tell(
            errors.ConfigError.for_value(
                params, "source", "the folder of the images", f"{source}, which is a file", cure
            )
        )
    elif source.is_dir() and not os.access(source, os.R_OK | os.X_OK):
        tell(
            errors.ConfigError.for_value(
                params, "source", "a folder that you may list", source, f"chmod u+rx '{source}'"
            )
        )


def _fault(path: Path, *, needs_file: bool = False) -> str | None:
    """What is wrong with a path that someone wrote down."""
    shown = errors.shorten(str(path))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"{shown}, which is not there"
    except OSError as error:
        return f"{shown} ({error.strerror})"
    return f"{shown}, which is no file" if needs_file and not stat.S_ISREG(mode) else None


def _weights(
    weights: teacher_config.CheckpointWeights, where: Path, tell: Callable[[errors.ConfigError], None]
) -> None:
    try:
        path = teacher_config.checkpoint_path(weights.path)
    except errors.ConfigError as error:
        tell(errors.ConfigError(f"{where}: {error.where}", error.what, error.cure))
        return
    if fault := _fault(path, needs_file=True):
        tell(
            errors.ConfigError.for_value(where, "weights.path", "a file", fault, "Correct the path, or fetch the file")
        )
    elif (digest := hashing.sha256_file(path)) != weights.sha256:
        cure = f"Write the sha256 of {path} if that file is meant, else restore it"
        tell(errors.ConfigError.for_value(where, "weights.sha256", digest, weights.sha256, cure))


def _is_made(start: student_spec.StartFile, choice: LoadedConfigs, places: ArtifactPaths) -> bool:
    """Whether the weights are of another student here that has not been trained yet."""
    outputs = {places.students / name for name in choice.students}
    return Path(start.path) in outputs and _fault(Path(start.path)) is not None


def _start(start: student_spec.StartFile, where: str, tell: Callable[[errors.ConfigError], None]) -> None:
    path = start.file()
    if fault := _fault(path, needs_file=True):
        cure = "Train that student first, or correct the path"
        tell(errors.ConfigError.for_value(where, "start.path", "a student's folder or a safetensors file", fault, cure))
    elif (digest := hashing.sha256_file(path)) != start.sha256:
        cure = f"Write that of {path} if these weights are meant, else restore them: dvc checkout"
        tell(errors.ConfigError.for_value(where, "start.sha256", digest, start.sha256, cure))


def require_disk_space(least_bytes: int, scratch: Path, where: Path) -> None:
    """Refuse rows for which there is no room, beside those that are there.

    Args:
        least_bytes: that all rows take, compressed.
        scratch: folder of finished units, which are linked from the store, not copied.
        where: file of the count of aug seeds.

    Raises:
        ConfigError: there is no room.
    """
    there = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    folder = next(parent for parent in (scratch, *scratch.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if least_bytes > there + free:
        got = f"rows of at least {least_bytes / 1e9:,.1f} GB, where {(there + free) / 1e9:,.1f} GB are free"
        cure = "Lower aug_seeds, keep less of a row (configs/cache), or make room"
        raise errors.ConfigError.for_value(where, "aug_seeds", f"as many as {folder} has room for", got, cure)
