"""How quickly a network answers, measured in one way for teachers and students: a report sets them side by side."""

import platform
import time
from pathlib import Path

import torch

from teachonce.core import run_record

_BATCH = {"cpu": 32, "cuda": 256}
_LEAST_PASSES = 3
_ENOUGH_S = 0.4
_SLOW_S = 2.0
"""A pass that takes longer is timed once: its noise is small beside it, and three would keep the stage waiting."""


def fastest_device() -> torch.device:
    """The first GPU, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def measure_forward(network: torch.nn.Module, size: int) -> run_record.ForwardSpeed:
    """Time forward passes of a batch that lies on the network's device already; the quickest one counts.

    What else the machine does can only slow a pass down: a mean would tell of that too.

    Args:
        network: in evaluation mode; left as it is.
        size: side of its input in pixels.
    """
    device = next(network.parameters()).device
    batch = _BATCH.get(device.type, _BATCH["cpu"])
    # Not zeros, which some kernels could pass over more quickly; every batch is the same one.
    pixels = torch.arange(batch * 3 * size * size, device=device).remainder(255).float() / 128 - 1
    images_B3HW = pixels.view(batch, 3, size, size)
    with torch.inference_mode():
        times_s = [_time_pass(network, images_B3HW)]
        # The first pass chooses kernels and takes memory, and does not count, unless the others would take too long.
        if times_s[0] < _SLOW_S:
            times_s = [_time_pass(network, images_B3HW)]
            while len(times_s) < _LEAST_PASSES or sum(times_s) < _ENOUGH_S:
                times_s.append(_time_pass(network, images_B3HW))
    return run_record.ForwardSpeed(
        images_a_second=round(batch / min(times_s), 1),
        batch=batch,
        device=_device_name(device),
        threads=torch.get_num_threads(),
    )


def _time_pass(network: torch.nn.Module, images_B3HW: torch.Tensor) -> float:
    start_s = time.perf_counter()
    network(images_B3HW)
    if images_B3HW.is_cuda:
        # Kernels are only queued: without waiting for them, the time would be that of the queueing.
        torch.cuda.synchronize(images_B3HW.device)
    return time.perf_counter() - start_s


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    # A processor's name is told by Linux alone; elsewhere its architecture must do.
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
