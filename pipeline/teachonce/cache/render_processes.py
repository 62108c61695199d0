"""Processes that render, each behind a pipe of its own.

A pipe that several processes write to is not enough: one that is killed within a result leaves half of it there, and
the reader waits for the rest without end. Here the death of a process is the end of its pipe, at whatever byte; what it
was at is given to another one, once.
"""

import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_AHEAD = 2
"""Tasks that a process holds where there are many, so that it need not wait for the next one."""
_TRIES = 2
"""Of a task whose process dies."""
_ENDS_S = 5.0
"""What a process that is asked to end has for it."""


@dataclass(slots=True)
class _Task:
    future: Future[Any]
    work: tuple[Callable[..., object], tuple[object, ...], dict[str, object]]
    sent: bool = False
    tries: int = 0


class _Process:
    """A process and this end of its pipe."""

    def __init__(self, context: ForkServerContext, initializer: Callable[[], None]) -> None:
        self._here, there = context.Pipe()
        # A daemon: it ends with this process.
        self._process = context.Process(target=_work, args=(there, initializer), daemon=True)
        self._process.start()
        # The other end is that process's alone: its death ends the pipe.
        there.close()

    def outcome(self, tasks: deque[_Task]) -> tuple[object, Exception | None]:
        """What became of the first of some tasks; those that it does not hold yet are sent.

        Raises:
            EOFError: the process is gone.
            OSError: likewise.
        """
        for task in tasks:
            if not task.sent:
                # Never long: a thread there reads while it works.
                self._here.send(task.work)
                task.sent = True
        found: tuple[object, Exception | None] = self._here.recv()
        return found

    def close(self) -> None:
        """End it."""
        self._here.close()
        self._process.join(_ENDS_S)
        self._process.kill()
        self._process.join()


class ProcessExecutor(Executor):
    """An executor of processes, each served by a thread here."""

    def __init__(self, workers: int, context: ForkServerContext, initializer: Callable[[], None]) -> None:
        """Start no process yet: each starts with its first task.

        Args:
            workers: how many.
            context: how they start.
            initializer: called once in each.
        """
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._context = context
        self._initializer = initializer
        self._one_starts = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, name="renderer", daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As every executor; a function travels as the name of its module and its own.

        The future raises `BrokenExecutor` where every process that tried it died.
        """
        future: Future[T] = Future()
        self._tasks.put(_Task(future, (fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As every executor."""
        while cancel_futures and (task := self._waiting()):
            task.future.cancel()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _serve(self) -> None:
        process: _Process | None = None
        held = deque[_Task]()
        while self._take(held):
            try:
                process = process or self._started()
                value, error = process.outcome(held)
            except (EOFError, OSError):
                if process:
                    process.close()
                process = None
                _blame(held)
                continue
            future = held.popleft().future
            if error:
                future.set_exception(error)
            else:
                future.set_result(value)
        if process:
            process.close()

    def _started(self) -> _Process:
        with self._one_starts:
            return _Process(self._context, self._initializer)

    def _take(self, held: deque[_Task]) -> bool:
        """Hold a task, or more where no other thread would lack one; False at the end."""
        while not held:
            task = self._tasks.get()
            if task is None:
                return False
            if task.future.set_running_or_notify_cancel():
                held.append(task)
        while len(held) < _AHEAD and self._tasks.qsize() > len(self._threads) and (task := self._waiting()):
            if task.future.set_running_or_notify_cancel():
                held.append(task)
        return True

    def _waiting(self) -> _Task | None:
        """The next task, if one waits."""
        try:
            task = self._tasks.get_nowait()
        except queue.Empty:
            return None
        if task is None:
            # Some thread's request to end.
            self._tasks.put(None)
        return task


def _blame(held: deque[_Task]) -> None:
    """A process died at the first of its tasks: try that once more, with all others."""
    for task in held:
        task.sent = False
    held[0].tries += 1
    if held[0].tries == _TRIES:
        held.popleft().future.set_exception(BrokenExecutor("every process that tried it died"))


def _work(there: "Connection[object, object]", initializer: Callable[[], None]) -> None:
    """What a process does, until its pipe ends."""
    initializer()
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(there, tasks), daemon=True).start()
    while work := tasks.get():
        function, args, kwargs = work
        outcome: tuple[object, Exception | None]
        try:
            outcome = function(*args, **kwargs), None
        except Exception as error:  # whatever it is, it is raised where the result is asked for
            error.add_note("".join(traceback.format_exception(error)))
            outcome = None, error
        there.send(outcome)


def _read(there: "Connection[object, object]", tasks: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            tasks.put(there.recv())
    except (EOFError, OSError):
        tasks.put(None)
