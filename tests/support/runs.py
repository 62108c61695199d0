"""Runs of `stages.train`, as processes and here, and what they leave; for the tests of a student."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import stage_processes

from teachonce.core import config, project_params
from teachonce.student import checkpoint, student_run, student_spec, train_cached
from teachonce.views import views_config

ROOT = Path(__file__).parents[2]


def start(arguments: list[str], *, start_new_session: bool = False) -> stage_processes.Process:
    return stage_processes.Process(
        ["-W", "error::ResourceWarning", "-m", "stages.train", *arguments],
        cwd=ROOT,
        environment={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        before="import os; os.setsid()" if start_new_session else "",
    )


def end(process: stage_processes.Process) -> str:
    """Wait for success; what it wrote on stderr."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert not stdout
    return stderr


def refusal(arguments: list[str]) -> str:
    """The one line of a run that is refused."""
    process = start(arguments)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    assert not stdout
    assert "Traceback" not in stderr, stderr
    lines = stderr.strip().splitlines()
    assert lines[-1].startswith("error: "), stderr
    assert len([line for line in lines if "step/s" not in line and "steps/s" not in line]) == 1, stderr
    return lines[-1]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of everything a run leaves, but for its cost."""
    paths = [*(folder / "model").rglob("*"), *(folder / "curves").rglob("*")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }


def cost(folder: Path) -> dict[str, object]:
    return json.loads((folder / "cost.json").read_text())


def scratch(folder: Path) -> Path | None:
    """The folder of the run in progress."""
    return next(iter((folder / "scratch").glob("*")), None)


def logged(folder: Path) -> int:
    """Steps whose loss DVCLive has written down, or 0."""
    run = scratch(folder)
    path = run / "curves/plots/metrics/loss.tsv" if run else None
    return len(path.read_text().splitlines()) - 1 if path and path.is_file() else 0


def saved_steps(folder: Path) -> int:
    """Steps in the checkpoint."""
    run = scratch(folder)
    state = checkpoint.load(run) if run else None
    return state.step if state else 0


def kill_when(arguments: list[str], reached: Callable[[], bool]) -> None:
    """Start a run and kill it, as the kernel would, once something is there."""
    process = start(arguments)
    limit_s = time.monotonic() + 200
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit_s
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def in_process(arguments: list[str]) -> dict[str, object]:
    """The run of a command line, here."""
    at = dict(zip((name[2:] for name in arguments[::2]), arguments[1::2], strict=True))
    choice = project_params.ConfigChoices(Path(at["params"]), Path("configs"))
    return train_cached.train_from_cache(
        student_spec.read(choice, at["student"], Path(at["config"])),
        config.load(Path(at["views"]), views_config.ViewsConfig),
        Path(at["shards"]),
        Path(at["cache"]),
        student_run.RunFolders(Path(at["scratch"]), Path(at["out"]), Path(at["curves"])),
    )
