"""Waiting for a unit that Dask workers compute: never without end for workers that are gone."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from contextlib import suppress
from typing import TypeVar

import distributed

from teachonce.core import errors, waiting

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_POLL_S = 5
"""Seconds between looks at whether there still are workers."""
_SILENT_S = 20
"""Seconds without workers after which a warning says so."""
_LOST_S = 30
"""Seconds without workers after which a local cluster is given up: a worker that dies as it starts is started again
without end, some hundred times a second."""
_CLOSE_S = 20
"""Seconds that a local cluster has to close."""
_ENDED = (distributed.Status.closing, distributed.Status.closed, distributed.Status.failed)
_NO_WORKERS = "all workers of the local Dask cluster died, and could not be started again"
_FEWER = (
    "Out of memory, processes or files (ulimit -a)? Finished units are kept: run the same command again, with fewer "
    "workers in configs/cache"
)
_NO_WORKER = "no Dask worker: waiting for one. Start it (dask worker ADDRESS), or end this run (Ctrl-C)"
_NO_ANSWER = (
    "the Dask scheduler does not answer. See that its process is not stopped, and can be reached; or end this run "
    "(Ctrl-C): finished units are kept"
)


def wait_first(client: distributed.Client, running: Sequence[distributed.Future[T]]) -> distributed.Future[T]:
    """The first of some tasks that has ended, well or not. A wait for workers, which may come and go, is logged once.

    Raises:
        ClusterError: a local cluster has no workers any more.
    """

    def poll() -> distributed.Future[T] | None:
        # Polled, since a wait without a limit would not notice that no worker is left to end a task.
        with suppress(TimeoutError, futures.CancelledError):
            distributed.wait(running, timeout=_POLL_S, return_when="FIRST_COMPLETED")
        return next((future for future in running if future.status != "pending"), None)

    return _poll_until_result(client, poll)


def wait_result(client: distributed.Client, future: distributed.Future[T]) -> T:
    """The result of a finished task; where its worker died before the result was fetched, Dask runs it again.

    Raises:
        ClusterError: a local cluster has no workers any more.
    """

    # In a tuple, which tells a result of None from none yet.
    def poll() -> tuple[T] | None:
        with suppress(TimeoutError):
            return (future.result(timeout=_POLL_S),)
        return None

    return _poll_until_result(client, poll)[0]


def _poll_until_result(client: distributed.Client, poll: Callable[[], T | None]) -> T:
    """Call `poll`, which takes `_POLL_S` at most, until it gives a result."""
    start_s, reported = time.monotonic(), False
    while (result := poll()) is None:
        if _has_workers(client):
            start_s, reported = time.monotonic(), False
        without_s = time.monotonic() - start_s
        if without_s >= _LOST_S and isinstance(client.cluster, distributed.LocalCluster):
            raise _give_up(client.cluster)
        if without_s >= _SILENT_S and not reported:
            _LOG.warning("%s", _NO_WORKER)
            reported = True
    return result


def _has_workers(client: distributed.Client) -> bool:
    """Whether the scheduler has any worker.

    Raises:
        ClusterError: the workers of a local cluster are gone, and the nannies that start them have given up.
    """
    cluster = client.cluster
    if not isinstance(cluster, distributed.LocalCluster):
        with waiting.report_if_slow(lambda: _NO_ANSWER):
            return bool(client.nthreads())
    # The scheduler and the nannies of a local cluster are in this process: looked at directly, since a message to a
    # scheduler that is busy restarting workers may wait.
    if cluster.scheduler is not None and cluster.scheduler.workers:
        return True
    if all(nanny.status in _ENDED for nanny in cluster.workers.values()):
        raise _give_up(cluster)
    return False


def _give_up(cluster: distributed.LocalCluster) -> errors.ClusterError:
    """The error to raise; nannies are told to start no more workers, as they would while the cluster is closed."""
    # From here on a nanny would log its own end, at length.
    logging.getLogger("distributed.nanny").disabled = True
    for nanny in cluster.workers.values():
        nanny.loop.add_callback(nanny.close_gracefully)
    return errors.ClusterError("", _NO_WORKERS, _FEWER)


def close_cluster(cluster: distributed.LocalCluster) -> None:
    """Close a local cluster; what does not end in time ends with this process, whose children its parts are."""
    with suppress(TimeoutError):
        cluster.close(timeout=_CLOSE_S)
