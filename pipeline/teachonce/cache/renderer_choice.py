"""Who renders: threads of this process, or processes beside it that leave the interpreter to the teacher.

Either way `rendered_batches.render_group` makes the pixels, and the bytes are the same.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from multiprocessing import connection
from types import ModuleType
from typing import Literal

import torch

from teachonce.cache import render_processes, rendered_batches
from teachonce.core import allocator, terminal

Kind = Literal["threads", "processes"]
_LOG = logging.getLogger(__name__)


def default_kind(device: torch.device) -> Kind:
    """What renders beside a device.

    Threads share an interpreter: on 16 cores they rendered 1,100 views a second, processes 2,700 (RESULTS.md, "On a
    GPU"). On a CPU it is the teacher that takes the time.
    """
    return "processes" if device.type == "cuda" else "threads"


def start_pool(kind: Kind, workers: int) -> Executor:
    """Render with so many workers; to be shut down. Work and pixels of processes travel through pipes.

    A process that may have no children, such as a Dask worker under a nanny, takes threads instead.
    """
    if kind == "processes" and multiprocessing.current_process().daemon:
        _LOG.warning(
            "rendering by threads, which is slower: this Dask worker may start no processes. Start it with --no-nanny, "
            "or with DASK_DISTRIBUTED__WORKER__DAEMON=False"
        )
        kind = "threads"
    if kind == "threads":
        return ThreadPoolExecutor(workers)
    # Not forked from this process: it has threads, and perhaps a GPU.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_preloaded())
    return render_processes.ProcessExecutor(workers, context, _start)


def _preloaded() -> list[str]:
    """Modules that the processes share, rather than each importing its own: what renders, and what the program imports.

    Each of them runs the program's own module again, as `multiprocessing` does.
    """
    main = vars(sys.modules["__main__"]).values()
    return [rendered_batches.__name__, *sorted({module.__name__ for module in main if isinstance(module, ModuleType)})]


def _start() -> None:
    allocator.keep_freed_memory()
    terminal.sanitize_streams()
    # Ctrl-C is for the process that the work is for, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's process waits for work for ever, also where the one that it works for was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
