"""What runs in a Dask worker: it is let in or turned away as it joins, keeps the teacher, and computes units."""

from pathlib import Path

import distributed
import torch

from teachonce.cache import renderer_choice, unit_code, unit_lookup, unit_plan, unit_worker
from teachonce.core import errors, terminal
from teachonce.teacher import teacher_network


def device_type() -> str:
    """Of the device that this process would ask: `cpu` or `cuda`."""
    return teacher_network.default_device().type


class TeacherPlugin(distributed.WorkerPlugin):
    """Keeps the teacher in a worker from unit to unit; runs again in a worker that was restarted."""

    def __init__(self, folder: Path, device: str, render: renderer_choice.Kind | None) -> None:
        self.name = f"teachonce {folder}"
        self._folder = folder
        self._device = device
        self._render = render
        self._code = unit_code.closure_digest()

    def setup(self, worker: distributed.Worker) -> None:
        """Refuse what would answer otherwise than the driver believes."""
        # A worker's log tells of images and tars, too.
        terminal.sanitize_streams()
        threads = worker.state.nthreads
        torch.set_num_threads(threads)
        facts = {
            "code": (self._code, unit_code.closure_digest(), "Install the driver's release there"),
            "device": (self._device, device_type(), "Start workers of one kind"),
        }
        for name, (ours, theirs, cure) in facts.items():
            if ours != theirs:
                raise errors.ConfigError.for_value(f"worker {worker.address}", name, ours, theirs, cure)
        device, render_workers = torch.device(self._device), threads
        if device.type == "cuda":
            count = torch.cuda.device_count()
            render_workers = max(1, teacher_network.available_cpus() // count)
            # A local cluster numbers its workers; other launchers show each worker its own GPU first.
            device = torch.device("cuda", worker.name % count if isinstance(worker.name, int) else 0)
        self._producer = unit_worker.Worker(self._folder, device, render_workers, render=self._render)

    def teardown(self, worker: distributed.Worker) -> None:  # noqa: ARG002 - Dask's signature
        """Free the teacher."""
        self._producer.close()

    def unit(self, work: unit_lookup.Job, item: unit_plan.Unit) -> unit_worker.Result:
        """A task's work."""
        return self._producer.unit(work, item)


def produce(plugin: str, work: unit_lookup.Job, item: unit_plan.Unit) -> unit_worker.Result:
    """The task: what a Dask worker runs."""
    found = distributed.get_worker().plugins[plugin]
    if not isinstance(found, TeacherPlugin):
        raise TypeError(f"{plugin} is not a teacher")
    return found.unit(work, item)
