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
_MAX_ASSIGNED = 2
"""Tasks that a process is given where there are many, so that it need not wait for the next one."""
_MAX_TRIES = 2
"""Processes that may die at a task before it fails: a shortage of memory, for instance, may pass."""
_GRACE_S = 5.0
"""Seconds that a process has to end by itself before it is killed."""


@dataclass(slots=True)
class _Task:
    future: Future[Any]
    call: tuple[Callable[..., object], tuple[object, ...], dict[str, object]]
    sent: bool = False
    tries: int = 0


class _Process:
    """A process and this end of its pipe."""

    def __init__(self, context: ForkServerContext, initializer: Callable[[], None]) -> None:
        self._our_end, worker_end = context.Pipe()
        # A daemon: it ends with this process.
        self._process = context.Process(target=_run_process, args=(worker_end, initializer), daemon=True)
        self._process.start()
        # The other end is that process's alone: its death ends the pipe.
        worker_end.close()

    def outcome(self, tasks: deque[_Task]) -> tuple[object, Exception | None]:
        """What became of the first of some tasks; those that it does not hold yet are sent.

        Raises:
            EOFError: the process is gone.
            OSError: likewise.
        """
        # Results come in the order of the tasks, by one pipe: the next one received is that of the first task.
        for task in tasks:
            if not task.sent:
                # Cannot block for long: a thread of the process reads its pipe while another one renders. Were there
                # one thread, both sides could wait to write, each into a full pipe.
                self._our_end.send(task.call)
                task.sent = True
        outcome: tuple[object, Exception | None] = self._our_end.recv()
        return outcome

    def close(self) -> None:
        """Close the pipe, by which the process ends; kill it where it does not."""
        self._our_end.close()
        self._process.join(_GRACE_S)
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
        self._start_lock = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, name="renderer", daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As every executor; a function is sent as the name of its module and its own name, its arguments pickled.

        The future raises `BrokenExecutor` where every process that tried it died.
        """
        future: Future[T] = Future()
        self._tasks.put(_Task(future, (fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As every executor; where tasks are not cancelled, those that wait are still run."""
        while cancel_futures and (task := self._next_pending()):
            task.future.cancel()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _serve(self) -> None:
        process: _Process | None = None
        assigned = deque[_Task]()
        while self._assign(assigned):
            try:
                process = process or self._start_process()
                value, error = process.outcome(assigned)
            except (EOFError, OSError):
                # The pipe ended: the process is dead, whatever it had written of a result.
                if process:
                    process.close()
                process = None
                _retry_or_fail(assigned)
                continue
            future = assigned.popleft().future
            if error:
                future.set_exception(error)
            else:
                future.set_result(value)
        if process:
            process.close()

    def _start_process(self) -> _Process:
        # The fork server takes one request at a time, and both ends of a pipe are open here until the process has its
        # own.
        with self._start_lock:
            return _Process(self._context, self._initializer)

    def _assign(self, assigned: deque[_Task]) -> bool:
        """Give a process its next tasks: one, or more where no other thread would lack one; False at the end."""
        while not assigned:
            task = self._tasks.get()
            if task is None:
                return False
            if task.future.set_running_or_notify_cancel():
                assigned.append(task)
        while (
            len(assigned) < _MAX_ASSIGNED
            and self._tasks.qsize() > len(self._threads)
            and (task := self._next_pending())
        ):
            if task.future.set_running_or_notify_cancel():
                assigned.append(task)
        return True

    def _next_pending(self) -> _Task | None:
        """The next task, if one is in the queue."""
        try:
            task = self._tasks.get_nowait()
        except queue.Empty:
            return None
        if task is None:
            # A request to end is for whichever thread comes to it idle: it goes back.
            self._tasks.put(None)
        return task


def _retry_or_fail(assigned: deque[_Task]) -> None:
    """After a process died at the first of its tasks: mark all of them to be sent again, or fail the first for good."""
    # Only the first was being worked on, and only it is blamed: the others would fail for a neighbour's crash.
    for task in assigned:
        task.sent = False
    assigned[0].tries += 1
    if assigned[0].tries == _MAX_TRIES:
        assigned.popleft().future.set_exception(BrokenExecutor("every process that tried it died"))


def _run_process(worker_end: "Connection[object, object]", initializer: Callable[[], None]) -> None:
    """What a process does, until its pipe ends."""
    initializer()
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(worker_end, tasks), daemon=True).start()
    while call := tasks.get():
        function, args, kwargs = call
        outcome: tuple[object, Exception | None]
        try:
            outcome = function(*args, **kwargs), None
        except Exception as error:  # whatever it is, it is raised where the result is asked for
            error.add_note("".join(traceback.format_exception(error)))
            outcome = None, error
        worker_end.send(outcome)


def _receive(worker_end: "Connection[object, object]", tasks: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            tasks.put(worker_end.recv())
    except (EOFError, OSError):
        tasks.put(None)
