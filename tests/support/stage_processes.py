"""Processes of stages, started through `fork_server`."""

import atexit
import functools
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import fork_client

HERE = Path(__file__).parent
_SHIM = """#!{python} -SE
import os, sys
words = [word for word in sys.argv[1:] if word not in ("-u", "-B")]
while words[:1] and words[0].startswith("-W"):
    words = words[1 if words[0][2:] else 2:]
if words[:1] not in (["-m"], ["-c"]) or not words[1].startswith(("stages.", "teachonce.", "from multiprocessing.")):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
sys.path.insert(0, {here!r})
import fork_client
sys.exit(fork_client.run({address!r}, sys.argv[1:]))
"""


class Process:
    """A running stage, with the part of `subprocess.Popen` that tests use; its streams are text."""

    def __init__(self, words: Sequence[object], *, cwd: Path, environment: dict[str, str], before: str = "") -> None:
        """Start one.

        Args:
            words: of the command line after `python`.
            cwd: the folder it is in.
            environment: all of it.
            before: statements that it runs first, such as those that set limits.
        """
        self.args = ["python", *map(str, words)]
        self.returncode: int | None = None
        out, err = os.pipe(), os.pipe()
        self._connection = fork_client.ask(
            address(),
            self.args[1:],
            {0: _nothing(), 1: out[1], 2: err[1]},
            environment,
            cwd=str(cwd),
            before=before,
        )
        for end in (out[1], err[1]):
            os.close(end)
        self.stdout, self.stderr = (os.fdopen(ends[0], encoding="utf-8") for ends in (out, err))
        self._answers = self._connection.makefile()
        self.pid = int(self._answers.readline())
        self._readers: list[_Reader] = []

    def poll(self) -> int | None:
        """How it ended, if it has."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, once it has."""
        code = self._status(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it writes on stdout and stderr, once it has ended."""
        self._readers = self._readers or [_Reader(stream) for stream in (self.stdout, self.stderr)]
        until_s = None if timeout is None else time.monotonic() + timeout
        for reader in self._readers:
            reader.join(None if until_s is None else max(0.0, until_s - time.monotonic()))
            if reader.is_alive():
                texts = ["".join(each.texts).encode() for each in self._readers]
                raise subprocess.TimeoutExpired(self.args, timeout or 0, *texts)
        self.wait(None if until_s is None else max(0.0, until_s - time.monotonic()))
        stdout, stderr = ("".join(reader.texts) for reader in self._readers)
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        """Send one, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> "Process":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait, and let go of its streams."""
        for stream in (self.stdout, self.stderr):
            stream.close()
        self.wait()

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._answers.readline()))
            self._answers.close()
            self._connection.close()
        return self.returncode


class _Reader(threading.Thread):
    """Reads a stream to its end, and closes it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(daemon=True)
        self.texts: list[str] = []
        self._stream = stream
        self.start()

    def run(self) -> None:
        with self._stream:
            while text := self._stream.readline():
                self.texts.append(text)


def run(
    words: Sequence[object], *, cwd: Path, environment: dict[str, str], before: str = "", timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Start one and wait for its end; arguments as those of `Process`."""
    process = Process(words, cwd=cwd, environment=environment, before=before)
    stdout, stderr = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.wait(), stdout, stderr)


@functools.cache
def address() -> str:
    """Path of the socket of this process's server, which is started now and ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="fork-server-"))
    path = folder / "socket"
    python = folder / "bin/python"
    python.parent.mkdir()
    python.write_text(_SHIM.format(python=sys.executable, here=str(HERE), address=str(path)))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ""}
    server = subprocess.Popen(
        [sys.executable, HERE / "fork_server.py", path], env=environment, stdin=subprocess.PIPE, cwd=folder
    )
    while not path.exists():
        if server.poll() is not None:
            raise RuntimeError("the fork server has ended as it started")
        time.sleep(0.02)

    def end() -> None:
        server.kill()
        server.wait()
        server.stdin.close()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return str(path)


def commands() -> Path:
    """A folder with a `python` that runs stages, and their ranks and workers, through the server; all else as it is."""
    return Path(address()).parent / "bin"


@functools.cache
def _nothing() -> int:
    return os.open(os.devnull, os.O_RDONLY)
