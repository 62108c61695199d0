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
        """Start a `unit_worker.Worker` in this Dask worker.

        Raises:
            ConfigError: this worker would compute other bytes than the driver's name for a unit says.
        """
        # A worker's log tells of images and tars, too.
        terminal.sanitize_streams()
        threads = worker.state.nthreads
        torch.set_num_threads(threads)
        # Code and device are in a unit's name, which the driver makes: rows computed by other code or on another device
        # would lie under a name that promises otherwise, and be reused as such.
        facts = {
            "code": (self._code, unit_code.closure_digest(), "Install the driver's release there"),
            "device": (self._device, device_type(), "Start workers of one kind"),
        }
        for name, (driver_value, worker_value, cure) in facts.items():
            if driver_value != worker_value:
                raise errors.ConfigError.for_value(f"worker {worker.address}", name, driver_value, worker_value, cure)
        device, render_workers = torch.device(self._device), threads
        if device.type == "cuda":
            count = torch.cuda.device_count()
            render_workers = max(1, teacher_network.available_cpus() // count)
            # A local cluster numbers its workers; other launchers show each worker its own GPU first.
            device = torch.device("cuda", worker.name % count if isinstance(worker.name, int) else 0)
        self._worker = unit_worker.Worker(self._folder, device, render_workers, render=self._render)

    def teardown(self, worker: distributed.Worker) -> None:  # noqa: ARG002 - Dask's signature
        """Free the teacher's memory."""
        self._worker.close()

    def run_unit(self, job: unit_lookup.Job, unit: unit_plan.Unit) -> unit_worker.Result:
        """As `unit_worker.Worker.run_unit`."""
        return self._worker.run_unit(job, unit)


def run_unit(plugin: str, job: unit_lookup.Job, unit: unit_plan.Unit) -> unit_worker.Result:
    """The task: a module's function, so that it travels by name; the teacher waits for it in the worker's plugin."""
    worker_plugin = distributed.get_worker().plugins[plugin]
    if not isinstance(worker_plugin, TeacherPlugin):
        raise TypeError(f"{plugin} is not a teacher")
    return worker_plugin.run_unit(job, unit)
