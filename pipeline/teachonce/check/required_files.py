"""Checks of what this machine has: the source, files and packages that are named, room on the disk.

The stage that needs them checks them again. Where that stage need not run, what is missing is a warning.
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
    """Where results of the stages lie, as far as a check reads them."""

    shards: Path
    """Folder of shards."""
    students: Path
    """Folder that holds a folder for each trained student."""
    scratch: Path
    """Folder of finished units."""
    lock: LastRuns
    """What dvc.lock says of earlier runs."""


def check_resources(configs: LoadedConfigs, paths: ArtifactPaths, findings: Findings) -> None:
    """Check that everything exists that the configurations name.

    Args:
        configs: the configurations that could be read.
        paths: of the stages' results.
        findings: get a problem for what a stage will miss, and a warning where that stage need not run.
    """

    def report(stage: str, problem: errors.ConfigError) -> None:
        # Shards without a run of `prepare` were pulled or copied from another team, which has the images: what is
        # missing here is then no problem, and the same holds for a stage that DVC will not run.
        is_pulled = stage == "prepare" and not paths.lock.has(stage) and (paths.shards / index.NAME).is_file()
        must_run = not is_pulled and not paths.lock.is_settled(stage)
        (findings.problems if must_run else findings.warnings).append(problem)

    if configs.source is not None and configs.dataset is not None:
        _check_source(
            configs.source, configs.dataset, configs.choices.params, lambda problem: report("prepare", problem)
        )
    weights = teacher_config.published_weights(configs.teacher) if configs.teacher is not None else None
    if configs.teacher is not None and isinstance(weights, teacher_config.CheckpointWeights):
        key = "weights" if weights is configs.teacher.weights else "weights.start"
        _check_weights(weights, configs.path("teacher"), key, lambda problem: report("teacher", problem))
    for name, student in configs.students.items():
        if student.start is not None:
            where = f"{configs.choices.params}: students.{name}"
            if _is_trained_here(student.start, configs, paths):
                what = "start.path is trained first, and compared with its sha256 then"
                findings.warnings.append(errors.ConfigError(where, what))
            else:
                _check_start(student.start, where, lambda problem, name=name: report(f"train@{name}", problem))  # type: ignore[misc]


def _check_source(
    source: Path, data: dataset_config.Data, params: Path, report: Callable[[errors.ConfigError], None]
) -> None:
    cure = "Correct it, or pull the shards: dvc pull artifacts/shards"
    needs_folder = isinstance(data, dataset_config.ImageFolder | dataset_config.WebDataset)
    if fault := _path_fault(source):
        report(errors.ConfigError.for_value(params, "source", "the folder of the images", fault, cure))
    elif needs_folder and not source.is_dir():
        report(
            errors.ConfigError.for_value(
                params, "source", "the folder of the images", f"{source}, which is a file", cure
            )
        )
    elif source.is_dir() and not os.access(source, os.R_OK | os.X_OK):
        report(
            errors.ConfigError.for_value(
                params, "source", "a folder that you may list", source, f"chmod u+rx '{source}'"
            )
        )


def _path_fault(path: Path, *, needs_file: bool = False) -> str | None:
    """What keeps a path from being read, in words; None where nothing does."""
    shown = errors.shorten(str(path))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"{shown}, which is not there"
    except OSError as error:
        return f"{shown} ({error.strerror})"
    return f"{shown}, which is no file" if needs_file and not stat.S_ISREG(mode) else None


def _check_weights(
    weights: teacher_config.CheckpointWeights, where: Path, key: str, report: Callable[[errors.ConfigError], None]
) -> None:
    try:
        path = teacher_config.checkpoint_path(weights.path)
    except errors.ConfigError as error:
        report(errors.ConfigError(f"{where}: {key}.path", error.what, error.cure))
        return
    if fault := _path_fault(path, needs_file=True):
        cure = "Correct the path, or fetch the file"
        report(errors.ConfigError.for_value(where, f"{key}.path", "a file", fault, cure))
    elif (digest := hashing.sha256_file(path)) != weights.sha256:
        cure = f"Write the sha256 of {path} if that file is meant, else restore it"
        report(errors.ConfigError.for_value(where, f"{key}.sha256", digest, weights.sha256, cure))


def _is_trained_here(start: student_spec.StartFile, configs: LoadedConfigs, paths: ArtifactPaths) -> bool:
    """Whether the weights are those of another student of this project that has not been trained yet."""
    outputs = {paths.students / name for name in configs.students}
    return Path(start.path) in outputs and _path_fault(Path(start.path)) is not None


def _check_start(start: student_spec.StartFile, where: str, report: Callable[[errors.ConfigError], None]) -> None:
    path = start.file()
    if fault := _path_fault(path, needs_file=True):
        cure = "Train that student first, or correct the path"
        report(
            errors.ConfigError.for_value(where, "start.path", "a student's folder or a safetensors file", fault, cure)
        )
    elif (digest := hashing.sha256_file(path)) != start.sha256:
        cure = f"Write that of {path} if these weights are meant, else restore them: dvc checkout"
        report(errors.ConfigError.for_value(where, "start.sha256", digest, start.sha256, cure))


def require_disk_space(least_bytes: int, scratch: Path, where: Path) -> None:
    """Refuse rows for which the disk has no room, counting those that are there already.

    Args:
        least_bytes: that all rows take at least, compressed.
        scratch: folder of finished units, which are linked from the store, not copied.
        where: file of the count of aug seeds.

    Raises:
        ConfigError: there is no room.
    """
    # Units that are finished already take no more room: they are linked into the store, not copied.
    present_bytes = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    # The folder may not exist yet: its disk is that of the nearest one above it that does.
    folder = next(parent for parent in (scratch, *scratch.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(folder).free
    if least_bytes > present_bytes + free_bytes:
        got = (
            f"rows of at least {least_bytes / 1e9:,.1f} GB, where {(present_bytes + free_bytes) / 1e9:,.1f} GB are free"
        )
        cure = "Lower aug_seeds, keep less of a row (configs/cache), or make room"
        raise errors.ConfigError.for_value(where, "aug_seeds", f"as many as {folder} has room for", got, cure)
