"""Where units run: in this process, on a local Dask cluster, or on the workers of any Dask scheduler.

Units are independent, idempotent and named by what determines them, so that a lost worker costs its unit, nothing else.
"""

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import dask
import distributed
import torch

from teachonce.cache import (
    dask_worker,
    renderer_choice,
    unit_lookup,
    unit_plan,
    unit_worker,
    worker_watch,
)
from teachonce.core import allocator, errors
from teachonce.teacher import teacher_network

_LOG = logging.getLogger(__name__)
_RETRIES = 2
"""Of errors that may pass, such as a filesystem's; bad data and bad logits are not tried again."""

_SCHEDULER_LOST = ("", "the Dask scheduler is gone", "Finished units are kept: run the same command again")


class Executor(Protocol):
    """What runs units, wherever that is."""

    device: str
    """Type of the device that answers, `cpu` or `cuda`; part of a unit's name, since devices round differently."""

    def run(self, job: unit_lookup.Job, units: Sequence[unit_plan.Unit]) -> Iterator[unit_worker.Result]:
        """What became of each unit, as they end; in no order that may be relied on."""


class InProcessExecutor:
    """One unit after the other in this process, on all its cores."""

    def __init__(
        self, teacher: Path, render: renderer_choice.Kind | None = None, *, overlapped: bool | None = None
    ) -> None:
        device = teacher_network.default_device()
        self.device = device.type
        self._worker = unit_worker.Worker(
            teacher, device, teacher_network.available_cpus(), render=render, overlapped=overlapped
        )

    def run(self, job: unit_lookup.Job, units: Sequence[unit_plan.Unit]) -> Iterator[unit_worker.Result]:
        """What became of each unit, in order."""
        return (self._worker.run_unit(job, unit) for unit in units)

    def close(self) -> None:
        """Free the teacher's memory, and end what renders."""
        self._worker.close()


class DaskExecutor:
    """Units on a scheduler's workers, one at a time on each."""

    def __init__(
        self,
        teacher: Path,
        device: str,
        connect: Callable[[], distributed.Client],
        render: renderer_choice.Kind | None = None,
    ) -> None:
        self.device = device
        self._plugin = dask_worker.TeacherPlugin(teacher.resolve(), device, render)
        self._connect = connect
        self._client: distributed.Client | None = None

    def run(self, job: unit_lookup.Job, units: Sequence[unit_plan.Unit]) -> Iterator[unit_worker.Result]:
        """What became of each unit, as they end. Workers may come and go meanwhile.

        Raises:
            ConfigError: a worker cannot take part: other code, another device, no teacher.
            ClusterError: the scheduler is gone.
        """
        if not units:
            return
        client = self._registered_client()
        # A worker has its own working directory, where a relative path would name other files or none.
        job = replace(job, scratch=job.scratch.resolve(), shards=job.shards.resolved())
        try:
            yield from self._run(client, job, deque(units))
        except OSError as error:
            raise errors.ClusterError(*_SCHEDULER_LOST) from error

    def _run(
        self, client: distributed.Client, job: unit_lookup.Job, pending: deque[unit_plan.Unit]
    ) -> Iterator[unit_worker.Result]:
        running: dict[distributed.Future[unit_worker.Result], unit_plan.Unit] = {}
        while pending or running:
            # One unit in flight a worker: Dask counts a worker's death against all tasks that it was given, so that
            # units queued behind a deadly one would be given up with it.
            while pending and len(running) < max(1, len(client.nthreads())):
                unit = pending.popleft()
                # Not pure: Dask would hold two calls with equal arguments for one task, also where the first has
                # failed.
                future = client.submit(dask_worker.run_unit, self._plugin.name, job, unit, pure=False, retries=_RETRIES)
                running[future] = unit
            future = worker_watch.wait_first(client, list(running))
            yield _result(client, future, running.pop(future))

    def close(self) -> None:
        """Have workers that outlive this run, those of a foreign scheduler, free the teacher."""
        if self._client is not None:
            # A scheduler that is gone has no workers to tell.
            with suppress(OSError):
                self._client.unregister_worker_plugin(self._plugin.name)

    def _registered_client(self) -> distributed.Client:
        if self._client is None:
            client = self._connect()
            client.register_plugin(self._plugin)
            self._client = client
        return self._client


@contextmanager
def open_executor(teacher: Path, workers: int | None, render: renderer_choice.Kind | None = None) -> Iterator[Executor]:
    """What runs this run's units, closed at the end.

    Args:
        teacher: the teacher's folder.
        workers: processes of a local cluster, by default one a GPU or else one a core; 0 for this process alone. Where
            Dask knows a scheduler (DASK_SCHEDULER_ADDRESS, or `scheduler-address` in its configuration), all of its
            workers are used instead.
        render: what renders views in each of the processes; see `renderer_choice.Kind`.

    Raises:
        ClusterError: the scheduler cannot be reached.
    """
    address = dask.config.get("scheduler-address", None)
    with ExitStack() as stack:
        executor: InProcessExecutor | DaskExecutor
        if address:
            client = stack.enter_context(_client(address))
            # The workers' device, not the driver's: a driver without a GPU may well lead workers that have one.
            executor = DaskExecutor(teacher, _device(client, address), lambda: client, render)
            stack.callback(executor.close)
        elif workers == 0:
            executor = InProcessExecutor(teacher, render)
            stack.callback(executor.close)
        else:
            # Started by the first unit that is missing: a run that finds all of them needs no cluster.
            start = functools.partial(
                _start_local_cluster, stack, workers or torch.cuda.device_count() or teacher_network.available_cpus()
            )
            executor = DaskExecutor(teacher, teacher_network.default_device().type, start, render)
        yield executor


def _start_local_cluster(stack: ExitStack, workers: int) -> distributed.Client:
    # By default Dask tells its workers to give freed memory back at once, which costs as much as a small network: see
    # `core/allocator.py`. It must be in the environment before a worker starts, since its threads are there first.
    settings: dict[str, object] = {
        f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in allocator.ENVIRONMENT.items()
    }
    # A daemon may have no processes that render. A worker ends with this process anyway: it watches a pipe of it.
    settings["distributed.worker.daemon"] = False
    # As long as the cluster is there: a worker that died is started again by the same settings.
    stack.enter_context(dask.config.set(settings))
    # One thread each: the number of threads changes the order of sums, and bytes must not depend on the machine's
    # cores. No memory limit: a worker that Dask restarts for its memory would repeat its unit, and meet the limit
    # again.
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.ERROR,
    )
    stack.callback(worker_watch.close_cluster, cluster)
    client: distributed.Client = stack.enter_context(distributed.Client(cluster))
    return client


def _client(address: str) -> distributed.Client:
    try:
        client: distributed.Client = distributed.Client(address)
    except (OSError, ValueError) as error:
        raise errors.ClusterError(
            "DASK_SCHEDULER_ADDRESS",
            f"no scheduler answers at {address}",
            "Start it: dask scheduler; or unset the address",
        ) from error
    return client


def _device(client: distributed.Client, address: str) -> str:
    """The type of device that all workers of a scheduler have; waits for a first worker.

    Raises:
        ConfigError: they are of several types.
    """
    if not client.nthreads():
        _LOG.warning("waiting for a first worker at %s", address)
        client.wait_for_workers(1)
    devices: list[str] = sorted(set(client.run(dask_worker.device_type).values()))
    if len(devices) > 1:
        raise errors.ConfigError(
            "DASK_SCHEDULER_ADDRESS",
            f"workers must be of one device type. Got {' and '.join(devices)}",
            "Their rows would differ: start workers of one kind",
        )
    return devices[0]


def _result(
    client: distributed.Client, future: distributed.Future[unit_worker.Result], unit: unit_plan.Unit
) -> unit_worker.Result:
    if future.status == "finished":
        # The worker may have died with its result between the end of the task and now. Dask then computes it again, and
        # that may fail: what it failed with is read below.
        with suppress(distributed.KilledWorker, futures.CancelledError):
            return worker_watch.wait_result(client, future)
    if future.status != "error":
        raise errors.ClusterError(*_SCHEDULER_LOST)
    error = future.exception()
    # A refusal that `Worker.run_unit` lets through, a wrong configuration for instance, holds for every unit.
    if isinstance(error, errors.TeachonceError):
        raise error
    if isinstance(error, distributed.KilledWorker):
        line = "every worker that tried it died. Out of memory, or a crash in a library: see the workers' logs"
        return unit_worker.Result(unit, None, computed=False, error=line)
    return unit_worker.Result(
        unit, None, computed=False, error=f"{type(error).__name__}: {' '.join(str(error).split())}"
    )
