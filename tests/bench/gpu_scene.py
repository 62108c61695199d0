"""What the sections of `bench_gpu.py` share: where they measure, how long they may, and how they tell."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Scene:
    """One section's place and time."""

    device: torch.device
    """Where."""
    quick: bool
    """Whether everything is of toy size."""
    ends_s: float
    """When the section must have ended, by `time.monotonic`."""
    folder: Path
    """A place to work in; `shards` in it are photographs that all sections share."""
    send: Callable[[Mapping[str, Any]], None]
    """Takes a measurement."""

    def left_s(self) -> float:
        """The time that is left."""
        return self.ends_s - time.monotonic()

    def note(
        self, name: str, value: object, unit: str = "", *, least: float = 0.0, most: float = 0.0, **facts: object
    ) -> None:
        """Tell of a measurement.

        Args:
            name: what was measured.
            value: a number, or a word where there is none.
            unit: of the value.
            least: the goal, where it is to be at least so much; 0 for none.
            most: the goal, where it is to be at most so much; 0 for none.
            facts: what explains it.
        """
        shown = float(f"{value:.4g}") if isinstance(value, float) else value
        met = None if not (least or most) else bool(value >= least if least else value <= most)  # type: ignore[operator]
        goal = f"≥ {least:g}" if least else f"≤ {most:g}" if most else ""
        self.send({"name": name, "value": shown, "unit": unit, "goal": goal, "met": met, **facts})

    def skip(self, name: str, reason: str) -> None:
        """Tell of what is not measured, and why."""
        self.note(name, f"not run: {reason}")

    def wait(self) -> None:
        """Until the device has done all that was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """How long some work takes on the device, everything before it done."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def rounds(self, works: Mapping[str, Callable[[], object]], count: int) -> Iterator[dict[str, float]]:
        """Seconds of each work, all in turn, round by round; the first round warms up and is not given."""
        for number in range(count + 1):
            seconds = {name: self.seconds(work) for name, work in works.items()}
            if number:
                yield seconds
            if self.left_s() < sum(seconds.values()):
                return


def median(rounds: list[dict[str, float]], name: str) -> float:
    """Of one work's seconds."""
    return statistics.median(seconds[name] for seconds in rounds)


def spread(values: list[float]) -> str:
    """Median's neighbours: the smallest and the largest of the rounds."""
    return f"{min(values):.3g} to {max(values):.3g}"
