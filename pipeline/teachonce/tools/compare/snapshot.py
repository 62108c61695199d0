"""The results of one revision as files: laid out as its stages left them, from git and DVC's cache.

So a revision is compared whose files are not in the working folder, or in nobody's.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from teachonce.core import errors, files
from teachonce.evaluate import predictions
from teachonce.report import load_metrics
from teachonce.tools.compare import locked_stages, revisions

_MOST_BYTES = 1 << 28
_PARAMS = "params.yaml"


@dataclass(frozen=True, slots=True)
class ResultPaths:
    """Where dvc.yaml keeps what is compared, relative to the project."""

    records: PurePosixPath
    """Folder of what the stages say of their results."""
    costs: PurePosixPath
    """Folder of what the stages cost."""
    curves: PurePosixPath
    """Folder of the students' training curves, which git keeps."""
    predictions: PurePosixPath
    """Folder of the students' predictions."""

    def record(self, student: str) -> PurePosixPath:
        """What the stage `evaluate` says of a student."""
        return self.records / "evaluate" / f"{student}.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A revision's results in a folder."""

    revision: revisions.Revision
    """Whose results they are."""
    folder: Path
    """Holds params.yaml, dvc.lock and what of the results is here."""
    lock: locked_stages.LockedStages
    """What its dvc.lock says."""
    students: Mapping[str, object]
    """Entries of params.yaml by name, in its order."""
    missing: tuple[str, ...]
    """Outputs of its stages that are not here."""


class _Source:
    """Files of one revision."""

    def __init__(self, repository: revisions.Repository, commit: str | None) -> None:
        self._repo = repository.repo
        self._root = Path(self._repo.root_dir)
        self._prefix = repository.prefix
        self._is_workspace = commit is None
        self._tree = self._repo.scm.get_fs(commit) if commit else None
        self.lock = locked_stages.LockedStages({})

    def tracked(self, path: PurePosixPath) -> bytes | None:
        """A file that git tracks, or that lies in the working folder."""
        if self._tree is None:
            return _bytes(self._root / path)
        try:
            with self._tree.open(str("/" / self._prefix / path), "rb") as stream:
                return bytes(stream.read(_MOST_BYTES))
        except OSError:
            return None

    def output(self, path: PurePosixPath) -> bytes | None:
        """A file of an output, as dvc.lock knows it."""
        md5 = self._md5(path)
        data = _bytes(Path(self._repo.cache.local.oid_to_path(md5))) if md5 else None
        # In the working folder the file itself will do, where DVC's cache was cleared.
        return _bytes(self._root / path) if data is None and self._is_workspace else data

    def _md5(self, path: PurePosixPath) -> str | None:
        outputs = self.lock.outputs
        if str(path) in outputs:
            return outputs[str(path)]
        folder = next((parent for parent in path.parents if str(parent) in outputs), None)
        listing = _bytes(Path(self._repo.cache.local.oid_to_path(outputs[str(folder)]))) if folder else None
        if folder is None or listing is None:
            return None
        entries = files.parse_json(listing)
        md5s = {entry["relpath"]: entry["md5"] for entry in entries} if isinstance(entries, list) else {}
        return md5s.get(str(path.relative_to(folder)))


def take(repository: revisions.Repository, revision: revisions.Revision, paths: ResultPaths, folder: Path) -> Snapshot:
    """Lay out the results of a revision.

    Args:
        repository: of the project.
        revision: whose results.
        paths: where they are.
        folder: an empty one, which is filled.

    Raises:
        ConfigError: its params.yaml or dvc.lock is missing, damaged or names no student.
    """
    source = _Source(repository, revision.commit)
    for name in (_PARAMS, locked_stages.NAME):
        _put(folder / name, source.tracked(PurePosixPath(name)))
    if not (folder / _PARAMS).exists():
        cure = "Name a revision of this project"
        raise errors.ConfigError(revision.name, "holds no params.yaml", cure)
    students = load_metrics.read_students(folder / _PARAMS)
    source.lock = locked_stages.read(folder / locked_stages.NAME)
    missing = []
    for name in students:
        for path in _needed(paths, name):
            is_here = _put(folder / path, source.output(path))
            if not is_here and f"evaluate@{name}" in source.lock:
                missing.append(str(path))
        # Curves and costs may have been left behind: a comparison does without them.
        for path in _curves(paths, name):
            _put(folder / path, source.tracked(path))
    for path in _costs(paths, students):
        _put(folder / path, source.output(path))
    return Snapshot(revision, folder, source.lock, students, tuple(missing))


def _needed(paths: ResultPaths, student: str) -> Iterator[PurePosixPath]:
    yield paths.record(student)
    yield paths.predictions / student / predictions.NAME


def _curves(paths: ResultPaths, student: str) -> list[PurePosixPath]:
    return [paths.curves / student / "plots/metrics" / f"{curve}.tsv" for curve in load_metrics.CURVES]


def _costs(paths: ResultPaths, students: Iterable[str]) -> list[PurePosixPath]:
    names = [f"{stage}/{student}" for stage in ("train", "evaluate") for student in students]
    return [paths.costs / f"{name}.json" for name in ("cache", *names)]


def _bytes(path: Path) -> bytes | None:
    try:
        return files.read_bytes(path, _MOST_BYTES)
    except OSError:
        return None


def _put(path: Path, data: bytes | None) -> bool:
    if data is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True
