"""Stages as processes of their own that need not import torch again: forked from a process that has.

A stage of a test works for a second, and imports for four. So one process for each of pytest's workers imports the
libraries, but none of this project's code and nothing that reads the environment as it is imported. For each request it
forks; the fork takes over the words, environment, folder and streams of the request and runs `python -m MODULE` to its
end, as the interpreter does. A test of the start itself, or of settings that a library reads only then, starts Python.

    python fork_server.py SOCKET    serves, until its standard input ends
"""

import fcntl
import gc
import importlib
import json
import multiprocessing
import os
import random  # noqa: TID251 - seeded anew, as a new interpreter's is
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

LIBRARIES = ("fsspec", "numcodecs", "numpy", "PIL.Image", "pydantic", "ruamel.yaml", "safetensors.torch", "timm")
LIBRARIES += ("timm.optim", "timm.scheduler", "torch", "torchvision", "tqdm", "zarr")
_REAL = "TEACHONCE_TEST_REAL_CHILDREN"
"""Environment variable: what a stage starts is no fork of the server, so that it is found among its children."""
_MOST_STREAMS = 64
_FREE = 500  # no request asks for a file descriptor of such a number


class Server:
    """Forks on request, and tells how each fork ended."""

    def __init__(self, address: str) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(address)
        self._listening.listen(64)
        self._ended, self._wakeup = os.pipe()
        for end in (self._ended, self._wakeup):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup)
        self._running: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        for source in (self._listening, self._ended, sys.stdin):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> dict | None:
        """Serve until nobody asks any more: None. In a fork: what is asked of it."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj == self._ended:
                    self._reap()
                elif key.data is not None:
                    self._kill(key.fileobj, key.data)
                elif request := self._fork():
                    return request

    def _kill(self, connection: socket.socket, pid: int) -> None:
        """Whoever asked for it is gone, or was killed in its place."""
        self._selector.unregister(connection)
        if pid in self._running:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._ended, 1 << 10)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                with self._running.pop(pid) as connection, suppress(BrokenPipeError):
                    with suppress(KeyError):
                        self._selector.unregister(connection)
                    connection.sendall(b"%d\n" % status)

    def _fork(self) -> dict | None:
        connection, _ = self._listening.accept()
        size, streams, _, _ = socket.recv_fds(connection, 9, _MOST_STREAMS)
        with connection.makefile("rb") as stream:
            request = json.loads(stream.read(int(size)))
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            self._running[pid] = connection
            connection.sendall(b"%d\n" % pid)
            self._selector.register(connection, selectors.EVENT_READ, pid)
            return None
        # Out of the way of the numbers that they are to have.
        raised = [fcntl.fcntl(stream, fcntl.F_DUPFD, _FREE) for stream in streams]
        for stream in streams:
            os.close(stream)
        self._forget(connection)
        for stream, number in zip(raised, request["streams"], strict=True):
            os.dup2(stream, number)
            os.close(stream)
        return request

    def _forget(self, connection: socket.socket) -> None:
        """What is the server's alone."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for end in (self._ended, self._wakeup):
            os.close(end)
        for each in (connection, self._listening, *self._running.values()):
            each.close()


def become(request: dict, library_path: list[str], executable: str) -> None:
    """Be what `python WORDS` would be in that folder and environment.

    Args:
        request: as `fork_client.ask` makes it; `before` are statements that run first.
        library_path: `sys.path` without what comes from the environment.
        executable: of the `python` that asks this server.
    """
    exec(request.get("before", ""), {})  # noqa: S102 - a test's own
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    if executable and _REAL not in os.environ:
        # What it starts in its turn, ranks and workers, is forked as well.
        sys.executable = os.environ["PYTHON_EXEC"] = executable
        multiprocessing.set_executable(executable)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    random.seed()
    tempfile.tempdir = None
    words, options = list(request["words"]), []
    while words[0] not in {"-m", "-c"}:
        option = words.pop(0)
        if option.startswith("-W"):
            options.append(option[2:] or words.pop(0))
    sys.warnoptions[:] = options
    warnings._processoptions(options)
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [str(Path.cwd()), *given, *library_path]
    sys.argv[:] = words[1:]
    if words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        # Processes of multiprocessing, whose program names streams by their numbers.
        sys.argv[0] = "-c"
        exec(words[1], {"__name__": "__main__"})  # noqa: S102


def main() -> None:
    library_path = sys.path[1:]
    # Its extension, which a CPU never uses, tells of all its objects that are there when an interpreter ends.
    sys.modules["triton"] = None
    for name in LIBRARIES:
        importlib.import_module(name)
    del sys.modules["triton"]
    # What was imported stays shared with the forks, which need not look through it as they end either.
    gc.collect()
    gc.freeze()
    threads = list(Path("/proc/self/task").iterdir())
    if len(threads) != 1:
        sys.exit(f"{len(threads)} threads run after the imports: a fork would lack them")
    request = Server(sys.argv[1]).serve()
    if request:
        become(request, library_path, str(Path(sys.argv[1]).parent / "bin/python"))


if __name__ == "__main__":
    main()
