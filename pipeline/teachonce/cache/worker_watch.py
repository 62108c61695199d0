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
_LOOK_S = 5
"""Seconds between looks at whether there still are workers."""
_SILENT_S = 20
"""Seconds without workers before it is said."""
_LOST_S = 30
"""Seconds without workers after which those of a local cluster are given up: what dies as it starts is started without
end, some hundred times a second."""
_CLOSE_S = 20
_OVER = (distributed.Status.closing, distributed.Status.closed, distributed.Status.failed)
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
    """The first of some tasks that has ended, however. Waiting for workers, which may come and go, is said in a line.

    Raises:
        ClusterError: a local cluster has no workers any more.
    """

    def look() -> distributed.Future[T] | None:
        with suppress(TimeoutError, futures.CancelledError):
            distributed.wait(running, timeout=_LOOK_S, return_when="FIRST_COMPLETED")
        return next((future for future in running if future.status != "pending"), None)

    return _wait(client, look)


def wait_result(client: distributed.Client, future: distributed.Future[T]) -> T:
    """What a finished task gave; where its worker died with that, Dask computes it again once it has a worker.

    Raises:
        ClusterError: a local cluster has no workers any more.
    """

    def look() -> tuple[T] | None:
        with suppress(TimeoutError):
            return (future.result(timeout=_LOOK_S),)
        return None

    return _wait(client, look)[0]


def _wait(client: distributed.Client, look: Callable[[], T | None]) -> T:
    """Look, each time for `_LOOK_S`, until there is something."""
    since_s, reported = time.monotonic(), False
    while (seen := look()) is None:
        if _has_workers(client):
            since_s, reported = time.monotonic(), False
        without_s = time.monotonic() - since_s
        if without_s >= _LOST_S and isinstance(client.cluster, distributed.LocalCluster):
            raise _lost(client.cluster)
        if without_s >= _SILENT_S and not reported:
            _LOG.warning("%s", _NO_WORKER)
            reported = True
    return seen


def _has_workers(client: distributed.Client) -> bool:
    """Are there any?

    Raises:
        ClusterError: those of a local cluster are gone, and what started them has given up.
    """
    cluster = client.cluster
    if not isinstance(cluster, distributed.LocalCluster):
        with waiting.report_if_slow(lambda: _NO_ANSWER):
            return bool(client.nthreads())
    # Its scheduler and what starts its workers are in this process.
    if cluster.scheduler is not None and cluster.scheduler.workers:
        return True
    if all(nanny.status in _OVER for nanny in cluster.workers.values()):
        raise _lost(cluster)
    return False


def _lost(cluster: distributed.LocalCluster) -> errors.ClusterError:
    """What to raise; whatever starts workers is told to leave it, which would go on while the cluster is closed."""
    # From here on it would tell of its own end, at length.
    logging.getLogger("distributed.nanny").disabled = True
    for nanny in cluster.workers.values():
        nanny.loop.add_callback(nanny.close_gracefully)
    return errors.ClusterError("", _NO_WORKERS, _FEWER)


def close_cluster(cluster: distributed.LocalCluster) -> None:
    """End a local cluster; what does not end in time ends with this process."""
    with suppress(TimeoutError):
        cluster.close(timeout=_CLOSE_S)
