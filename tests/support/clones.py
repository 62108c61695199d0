"""Clones of this project with small configurations, driven by git and DVC as a person would."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import stage_processes
import yaml

ROOT = Path(__file__).parents[2]


class Project:
    """A clone of this project, and what its last command ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "DVC_NO_ANALYTICS": "1",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its stages do not import torch each for itself."""
        path = f"{stage_processes.commands()}{os.pathsep}{self.environment['PATH']}"
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    def do(self, *command: str) -> str:
        """What a command says; it must succeed."""
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ran(self, *command: str) -> set[str]:
        """Stages that a command ran, but for the checks, which any change to a configuration runs; it must succeed."""
        return stages(self.do(*command))

    def commit(self, message: str) -> None:
        self.do("git", "add", "-A")
        self.do("git", "commit", "-qm", message)

    def edit(self, path: str, change) -> None:
        file = self.folder / path
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        change(data)
        file.write_text("# changed by a test\n" + yaml.safe_dump(data, sort_keys=False), encoding="utf-8")

    def teacher_runs(self) -> int:
        return json.loads((self.folder / "artifacts/costs/cache.json").read_text())["train"]["units_computed"]


def stages(said: str) -> set[str]:
    """Stages that DVC says it ran, but for the checks."""
    names = set(re.findall(r"Running stage '([^']+)'", said))
    return {name for name in names if not name.startswith("check")}


def copy(folder: Path) -> None:
    """The project's own files, but for its tests and what runs have left."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "metrics/")) and name != "dvc.lock":
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)


def start(folder: Path, finished: Project | None = None) -> Project:
    """A first commit of the project on real data made small; nothing has run yet.

    Args:
        folder: that is made.
        finished: another one, whose finished units and DVC's cache this one has too: what ran there is not run again.
    """
    copy(folder)
    here = Project(folder)
    if finished:
        # Together, and by cp: an object that both hold is one file of two names, as it is there.
        shared = ["cp", "-a", "--parents", ".dvc/cache", ".teachonce/units", str(folder)]
        subprocess.run(shared, cwd=finished.folder, check=True)
    here.edit("configs/dataset/digits.yaml", lambda data: data.update(train_images=80, val_images=40, rows_per_tar=30))
    here.edit("configs/views/digits.yaml", lambda data: data.update(aug_seeds=2))
    here.edit("configs/cache/whole.yaml", lambda data: data.update(seeds_per_unit=1))
    here.edit("configs/teacher/resnet_small.yaml", lambda data: data["weights"].update(epochs=1, warmup_epochs=0))
    here.edit(
        "configs/student/deit_micro.yaml",
        lambda data: (
            data.update(epochs=2, warmup_epochs=0, batch_size=20, log_every=1, buffer=16)
            or data["arguments"].update(embed_dim=24, depth=2)
        ),
    )
    here.do("git", "init", "-q")
    here.commit("start")
    return here
