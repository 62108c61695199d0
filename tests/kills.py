"""kill -9 at random moments of the whole pipeline, until so many have been survived.

    python tests/kills.py [--kills 100] [--seed 0]

A clone with small configurations is run once without disturbance. Then, in clones of their own, the same command is
killed again and again and at last left alone: `dvc repro` with all its processes; DVC alone, which leaves its stage
behind; one process below it, which may be a stage, a worker of Dask or a loader; and an experiment of DVC's queue
(`dvc exp run --temp`). What it leaves must be the same bytes. A command that refuses to go on must print the one that
helps, or be DVC itself, of which docs/dvc.md tells what helps; it is counted, and followed.
"""

import argparse
import collections
import random  # noqa: TID251 - moments of kills, no view and no order of training
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

sys.path[:0] = [str(Path(__file__).parents[1] / "pipeline"), str(Path(__file__).parent / "support")]
import clones  # noqa: E402

from teachonce.core import hashing  # noqa: E402

LONGEST_S = 45.0
"""Between the start of a command and its kill; an undisturbed run takes about twice as long."""
KILLS_A_RUN = 12
CURES = {
    "RWLock-file": "rm .dvc/tmp/rwlock",
    "dvc.lock' validation failed": "rm dvc.lock",
    "invalid YAML": "rm dvc.lock",
}
"""What DVC says of its own files where a kill met it as it wrote them, and what docs/dvc.md has for it."""
WAYS = ("all", "dvc", "below", "queue")
REPRO = ("dvc", "repro")
QUEUED = ("dvc", "exp", "run", "--temp", "-n", "hot", "-S", "students.soft.tau=5.0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        kills = Kills(Path(place), args.seed)
        for run in range(args.kills):
            if kills.counts["kills"] >= args.kills:
                break
            kills.run(WAYS[run % len(WAYS)])
            print(dict(kills.counts), flush=True)
    print(
        f"{kills.counts['kills']} kills: the same bytes each time; {kills.counts['helped']} followed a printed command"
    )


class Kills:
    """What has been survived, and what an undisturbed run leaves."""

    def __init__(self, root: Path, seed: int) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._draw = random.Random(seed)  # noqa: S311
        self._root = root
        self._straight = clones.start(root / "straight")
        self._straight.do(*REPRO)
        self._expected = {"repro": left(self._straight), "queue": {}}
        hot = self._clone("hot")
        hot.do(*QUEUED)
        self._expected["queue"] = self._result(hot, "queue")

    def run(self, way: str) -> None:
        """Kill one run again and again, let it end, and compare."""
        queued = way == "queue"
        project = self._clone("run") if queued else clones.start(self._root / "run")
        command = QUEUED if queued else REPRO
        for _ in range(KILLS_A_RUN):
            code = self._kill(project, command, way)
            if code is not None:
                break
            self.counts["kills"] += 1
            self.counts[way] += 1
        if code != 0:
            self._end(project, command)
        result = self._result(project, way)
        expected = self._expected["queue" if queued else "repro"]
        assert result == expected, sorted(set(result.items()) ^ set(expected.items()))
        shutil.rmtree(project.folder)

    def _clone(self, name: str) -> clones.Project:
        """A copy of the undisturbed run, with its caches."""
        shutil.copytree(self._straight.folder, self._root / name, symlinks=True)
        project = clones.Project(self._root / name)
        project.commit("results") if project.do("git", "status", "--porcelain") else None
        return project

    def _result(self, project: clones.Project, way: str) -> dict[str, str]:
        if way == "queue":
            project.do("dvc", "exp", "apply", "hot")
        return left(project)

    def _kill(self, project: clones.Project, command: tuple[str, ...], way: str) -> int | None:
        """Kill the command after a while; its exit status where it had ended by itself."""
        with subprocess.Popen(
            command, cwd=project.folder, env=project.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            try:
                return running.wait(self._draw.uniform(0.5, LONGEST_S))
            except subprocess.TimeoutExpired:
                tree = psutil.Process(running.pid)
                below = tree.children(recursive=True)
                for victim in self._victims(way, tree, below):
                    if victim.is_running():
                        victim.send_signal(signal.SIGKILL)
                running.wait(300)
        return None

    def _victims(self, way: str, tree: psutil.Process, below: list[psutil.Process]) -> list[psutil.Process]:
        if way == "below":
            return [self._draw.choice(below or [tree])]
        return [tree] if way == "dvc" else [tree, *below]

    def _end(self, project: clones.Project, command: tuple[str, ...]) -> None:
        """Let the command end, following what it prints where it refuses."""
        said = ""
        for _ in range(5):
            done = project.run(*command)
            if done.returncode == 0:
                return
            said = done.stdout + done.stderr
            named = re.findall(r"(?:rm|dvc checkout|git checkout|kill|make) [\w./-]+", said)
            named += [command for line, command in CURES.items() if line in said]
            assert named, said
            self.counts["helped"] += 1
            project.run("sh", "-c", named[-1])
        raise AssertionError(said)


def left(project: clones.Project) -> dict[str, str]:
    """SHA-256 of all that a run leaves, but for the page, which shows wall times."""
    artifacts = project.folder / "artifacts"
    return {
        str(path.relative_to(artifacts)): hashing.sha256_file(path)
        for path in artifacts.rglob("*")
        if path.is_file() and path.name != "index.html"
    }


if __name__ == "__main__":
    main()
