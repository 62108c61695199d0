"""Start training processes with torchrun, and end as they do."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist
from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing import errors as elastic

from teachonce.core import errors
from teachonce.student import student_config

_ENDED = "TEACHONCE_RANKS_ENDED"
"""Environment variable: where a rank that need not be started again writes its exit code."""


def wanted(launcher: student_config.Launcher | None) -> student_config.Launcher | None:
    """What this process should start: nothing where it is a rank already."""
    return None if dist.is_torchelastic_launched() else launcher


def launch(launcher: student_config.Launcher, module: str, arguments: list[str]) -> int:
    """Run a module in all processes; start all again, from the last checkpoint, where one has died.

    Returns:
        The exit code of the run: that of the rank that told why it ends, or 0.

    Raises:
        StoppedError: a signal came before the first step, and was passed on.
        PeerError: a rank died once more than it may.
    """
    # Each rank tells for itself; torchrun's own account of the same is long.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // launcher.processes)))
    with tempfile.TemporaryDirectory() as place:
        told = Path(place) / "ended"
        os.environ[_ENDED] = str(told)
        options = [
            "--standalone",
            f"--nproc-per-node={launcher.processes}",
            f"--max-restarts={launcher.max_restarts}",
            f"--log-dir={place}",
            "--module",
            module,
            *arguments,
        ]
        try:
            run.run(run.parse_args(options))
        except SignalException as error:
            # Ranks that were training have said so, and where they are.
            if told.is_file():
                return int(told.read_text(encoding="utf-8"))
            name = signal.Signals(error.sigval).name
            raise errors.StoppedError(
                "train", f"{name} ended all ranks", "Run the same command again to go on"
            ) from error
        except elastic.ChildFailedError as error:
            if not told.is_file():
                raise _died(error, launcher) from error
        return int(told.read_text(encoding="utf-8")) if told.is_file() else 0


@contextmanager
def rank() -> Iterator[None]:
    """In a rank that `launch` started: hide from torchrun, which would repeat it, an end that would come again."""
    told = os.environ.get(_ENDED)
    try:
        yield
    except SystemExit as ended:
        if not told or not ended.code or ended.code == errors.PeerError.exit_code:
            raise
        Path(told).write_text(str(ended.code), encoding="utf-8")
        sys.exit(0)


def _died(error: elastic.ChildFailedError, launcher: student_config.Launcher) -> errors.PeerError:
    number, failure = error.get_first_failure()
    how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    return errors.PeerError(
        "train",
        f"rank {number} died of {how}, after {launcher.max_restarts} restarts",
        "Run the same command again to go on from the last checkpoint",
    )
