"""What renders: threads of this process, or processes beside it that leave the interpreter to the teacher.

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

from teachonce.cache import render_processes, rendered_batches
from teachonce.core import allocator, terminal
from teachonce.views import kernel_choice

Kind = Literal["threads", "processes"]
_LOG = logging.getLogger(__name__)


def default_kind(device_type: str) -> Kind:
    """What renders by default where the teacher runs on a type of device, such as cpu or cuda.

    Threads share an interpreter: on 16 cores they rendered 1,100 views a second, processes 2,700 (RESULTS.md, "On a
    GPU"). On a CPU it is the teacher that takes the time.
    """
    return "processes" if device_type == "cuda" else "threads"


def start_pool(kind: Kind, workers: int) -> Executor:
    """An executor of so many threads or processes, to be shut down. Images and pixels of processes go through pipes.

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
    # Not forked from this process: a fork copies locks that its other threads hold, and a CUDA context does not survive
    # one. A fork server has neither, and has imported once what every process needs.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_preloaded_modules())
    return render_processes.ProcessExecutor(workers, context, _set_up_process)


def _preloaded_modules() -> list[str]:
    """Modules that the processes share, rather than each importing its own: what renders, and what the program imports.

    Each of them runs the program's own module again, as `multiprocessing` does.
    """
    main = vars(sys.modules["__main__"]).values()
    rendering = [__name__, rendered_batches.__name__, kernel_choice.PRELOADED]
    return [*rendering, *sorted({module.__name__ for module in main if isinstance(module, ModuleType)})]


def _set_up_process() -> None:
    allocator.keep_freed_memory()
    terminal.sanitize_streams()
    # Ctrl-C reaches every process of a terminal: ignored here, since the process that gives out the tasks ends this
    # one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process with its parent: one that is killed ends nothing, and this process would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
