"""The revisions that are compared: the working folder, commits, and the results of DVC's experiments."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

import dvc.exceptions
import dvc.repo
import dvc.repo.experiments.utils
import dvc.scm

from teachonce.core import errors, spelling

WORKSPACE, HEAD = "workspace", "HEAD"
_WHERE = "teachonce compare"


@dataclass(frozen=True, slots=True)
class Revision:
    """A state of the project."""

    name: str
    """As a person calls it."""
    commit: str | None
    """Its commit; none for the working folder."""
    fetch_command: str
    """What brings its results into DVC's cache from a remote."""


class Repository:
    """The project's repositories of git and DVC."""

    def __init__(self, repo: dvc.repo.Repo) -> None:
        self.repo = repo
        self._has_git = not isinstance(repo.scm, dvc.scm.NoSCM)

    @property
    def prefix(self) -> PurePosixPath:
        """The project's folder within the repository of git."""
        return PurePosixPath(self.repo.fs.relpath(self.repo.root_dir, self.repo.scm.root_dir))

    def all_revisions(self) -> list[Revision]:
        """The working folder, its commit, and all experiments, the oldest first."""
        workspace = Revision(WORKSPACE, None, "dvc pull evaluate")
        if not self._has_git or self.repo.scm.no_commits:
            return [workspace]
        experiments = [self._experiment(ref.name, commit) for commit, ref in self._experiments()]
        return [workspace, self.revision(HEAD), *experiments]

    def revision(self, name: str) -> Revision:
        """What a person calls by a name: `workspace`, an experiment, a branch, a tag or a commit.

        Raises:
            ConfigError: there is no such revision.
        """
        if name == WORKSPACE:
            return self.all_revisions()[0]
        experiments = {ref.name: commit for commit, ref in self._experiments()} if self._has_git else {}
        if name in experiments:
            return self._experiment(name, experiments[name])
        try:
            commit = dvc.scm.resolve_rev(self.repo.scm, name)
        except (dvc.exceptions.DvcException, dvc.scm.SCMError) as error:
            near = spelling.did_you_mean(
                name, [WORKSPACE, *experiments, *self._names("branches"), *self._names("tags")]
            )
            cure = f"List them: dvc exp list --all-commits; git branch; git tag.{near}"
            condition = "an experiment, a branch, a tag, a commit or workspace"
            raise errors.ConfigError.for_value(_WHERE, "REV", condition, errors.shorten(name), cure) from error
        is_branch = name == HEAD or name in self._names("branches")
        option = "branches" if is_branch else "tags" if name in self._names("tags") else "commits"
        return Revision(name, commit, f"dvc fetch --all-{option} evaluate")

    def waiting_runs(self) -> dict[str, int]:
        """Counts of the queue's runs without a result, by what became of them."""
        if not self._has_git:
            return {}
        queue = self.repo.experiments.celery_queue
        runs = {"queued": queue.iter_queued, "running": queue.iter_active, "failed": queue.iter_failed}
        return {state: count for state, iterate in runs.items() if (count := sum(1 for _ in iterate()))}

    def _names(self, kind: str) -> list[str]:
        return list(getattr(self.repo.scm, f"list_{kind}")()) if self._has_git else []

    def _experiments(self) -> list[tuple[str, dvc.repo.experiments.utils.ExpRefInfo]]:
        scm = self.repo.scm
        refs = [(scm.get_ref(str(ref)), ref) for ref in dvc.repo.experiments.utils.exp_refs(scm)]
        return sorted(refs, key=lambda pair: (scm.resolve_commit(pair[0]).commit_time, pair[1].name))

    def _experiment(self, name: str, commit: str) -> Revision:
        remotes = self.repo.scm.pygit2.repo.remotes.names()
        remote = next(iter(sorted(remotes, key=lambda remote: (remote != "origin", remote))), "GIT_REMOTE")
        return Revision(name, commit, f"dvc exp pull {remote} {name}")


@contextmanager
def open_repository() -> Iterator[Repository]:
    """The project of the current folder.

    Raises:
        ConfigError: this is no project of DVC.
    """
    try:
        repo = dvc.repo.Repo()
    except (dvc.exceptions.DvcException, dvc.scm.SCMError) as error:
        cure = "Go to the folder of a project, one with a .dvc"
        raise errors.ConfigError(_WHERE, f"finds no repository of DVC here ({error})", cure) from error
    with repo:
        yield Repository(repo)


def select(repository: Repository, names: Sequence[str]) -> list[Revision]:
    """The revisions of these names; all where there is none.

    Raises:
        ConfigError: there is no such revision.
    """
    return [repository.revision(name) for name in names] if names else repository.all_revisions()
