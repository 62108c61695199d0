"""What a stage leaves behind about itself: what it cost, and what made it."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path

import pydantic

from teachonce.core import config, files

# Those whose release has changed, or could change, a pixel, a logit or the bytes of an array.
_LIBRARIES = ("numpy", "pillow", "timm", "torch", "torchvision", "webdataset", "zarr", "numcodecs")
# Decoders of images that lose something, by what Pillow calls them.
_DECODERS = {"libjpeg-turbo": "libjpeg_turbo", "libwebp": "webp", "libavif": "avif", "openjpeg": "jpg_2000"}


class ForwardSpeed(config.Model):
    """How many images a second a network answers, and what that was measured with."""

    images_a_second: float = pydantic.Field(gt=0)
    """Of a batch, divided by the time of its quickest forward pass in float32; decoding and rendering left out."""
    batch: int
    """Images of a forward pass."""
    device: str
    """Name of the processor or GPU."""
    threads: int
    """Threads of torch on the CPU."""

    def is_comparable(self, other: "ForwardSpeed") -> bool:
        """Whether two networks were measured in the same way on the same kind of device."""
        return (self.batch, self.device, self.threads) == (other.batch, other.device, other.threads)


class Timer:
    """Wall time of a stage, started when made."""

    def __init__(self) -> None:
        self._start_s = time.perf_counter()
        self._end_s: float | None = None

    def stop(self) -> None:
        """What comes now is no part of the stage's work."""
        self._end_s = time.perf_counter()

    def wall_s(self) -> float:
        """Seconds from when the timer was made until it was stopped, or until now, to the millisecond."""
        return round((self._end_s or time.perf_counter()) - self._start_s, 3)


def library_versions() -> dict[str, str]:
    """Versions of Python and of what can change a stored byte, lossy images' decoders included; the architecture."""
    from PIL import features  # noqa: PLC0415 - most of what imports this decodes nothing

    versions = {name: metadata.version(name) for name in _LIBRARIES}
    # The one part of a view that is not the package's own. Pillow comes with one or another of them, or a system's.
    for decoder, name in _DECODERS.items():
        versions[decoder] = str(features.version(name))
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}


def write_cost(path: Path, timer: Timer, **facts: object) -> None:
    """Write what a stage cost. Kept apart from results, since it differs between two equal runs.

    Args:
        path: the JSON file.
        timer: started when the stage began.
        facts: counts that explain the time, for instance units computed and reused.
    """
    files.write_json(path, {"wall_s": timer.wall_s(), "cpus": os.cpu_count(), **facts})
