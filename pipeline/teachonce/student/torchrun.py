"""Start training processes with torchrun, and end as they do."""

import atexit
import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import torch.distributed as dist
from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing import errors as elastic

from teachonce.core import command, errors
from teachonce.student import train_config

_ENDED = "TEACHONCE_RANKS_ENDED"
"""Environment variable: where a rank that need not be started again writes its exit code."""


def launch_if_configured(launcher: train_config.Launcher | None, module: str, argv: Sequence[str] | None) -> None:
    """Where several processes are configured and this is none of them: start them, and end as they do.

    Args:
        launcher: how many; None trains in this process.
        module: that each of them runs.
        argv: words of the command line; None takes the process's.

    Raises:
        SystemExit: the processes have ended.
        StoppedError: a signal came before the first step, and was passed on.
        PeerError: a rank died once more than it may.
    """
    if launcher and not dist.is_torchelastic_launched():
        sys.exit(_launch(launcher, module, sys.argv[1:] if argv is None else list(argv)))


def _launch(launcher: train_config.Launcher, module: str, arguments: list[str]) -> int:
    """Run a module in all processes; start all again, from the last checkpoint, where one has died.

    Returns:
        The exit code of the run: that of the rank that said why it ends, or 0.

    Raises:
        StoppedError: a signal came before the first step, and was passed on.
        PeerError: a rank died once more than it may.
    """
    # Each rank tells for itself; torchrun's own account of the same is long.
    logging.disable(logging.CRITICAL)
    # Where nobody sets it, torchrun gives each rank one thread, and other cores stay idle.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // launcher.processes)))
    with tempfile.TemporaryDirectory() as place:
        exit_code = Path(place) / "ended"
        os.environ[_ENDED] = str(exit_code)
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
            if exit_code.is_file():
                return int(exit_code.read_text(encoding="utf-8"))
            name = signal.Signals(error.sigval).name
            raise errors.StoppedError(
                "train", f"{name} ended all ranks", "Run the same command again to go on"
            ) from error
        except elastic.ChildFailedError as error:
            if not exit_code.is_file():
                raise _died(error, launcher) from error
        return int(exit_code.read_text(encoding="utf-8")) if exit_code.is_file() else 0


def run_rank(main: Callable[[], None]) -> None:
    """Run a command as a process that may be one of several ranks."""
    if not dist.is_torchelastic_launched():
        command.run_stage(main)
        return
    # Started again by torchrun though the run has ended: a rank died after it had said so.
    exit_code = os.environ.get(_ENDED)
    if exit_code and Path(exit_code).exists():
        sys.exit(0)
    try:
        with _hide_final_exits():
            command.run_stage(main)
    except SystemExit as ended:
        _leave(ended.code)
    _leave(0)


def _leave(code: str | int | None) -> NoReturn:
    """End this process without the interpreter's own end.

    Gloo's threads live as long as DDP's model does, and let go of tensors after the wait for them is over. One that
    needs the interpreter's lock while that ends is unwound through C++, which aborts the process; torchrun would take
    that for a death, and train on after the run was asked to end.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter would call: temporary files and children end
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


@contextlib.contextmanager
def _hide_final_exits() -> Iterator[None]:
    """In a rank that `_launch` started: hide from torchrun, which would repeat it, an end that would come again."""
    exit_code = os.environ.get(_ENDED)
    try:
        yield
    except SystemExit as ended:
        # A lost rank is worth another start. A refusal would come again from each, so that torchrun is told of a
        # success.
        if not exit_code or not ended.code or ended.code == errors.PeerError.exit_code:
            raise
        Path(exit_code).write_text(str(ended.code), encoding="utf-8")
        sys.exit(0)


def _died(error: elastic.ChildFailedError, launcher: train_config.Launcher) -> errors.PeerError:
    # torchrun looks once in a while, and may find both the rank that died and one that ended for want of it.
    causes = {rank: found for rank, found in error.failures.items() if found.exitcode != errors.PeerError.exit_code}
    dead_rank, failure = min((causes or error.failures).items(), key=lambda item: item[1].timestamp)
    how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    return errors.PeerError(
        "train",
        f"rank {dead_rank} died of {how}, after {launcher.max_restarts} restarts",
        "Run the same command again to go on from the last checkpoint",
    )
