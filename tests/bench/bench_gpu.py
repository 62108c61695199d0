"""All of the project on a GPU: is it right, and how fast is it, section by section, in a few minutes.

    python tests/bench/bench_gpu.py [--minutes 5] [--device cuda] [--quick] [--only right,teacher] [--out FOLDER]

Nothing needs to be installed but what a machine with torch, torchvision, timm, Pillow, NumPy and scikit-learn has, and
the project with its pure dependencies on PYTHONPATH; no network, no weights, no data from anywhere.

- right: the tests of tests/gpu.
- teacher: forwards of regnety_160 and resnet50, alone, fed with rendered views, and in whole units of the cache stage.
- student: steps of DeiT-Ti, S and B from rows, with a live teacher, without either, compiled and not, and timm's own.
- feed: views a second of the loader, by worker processes, beside timm's transform on the same JPEGs.
- limits: what a GPU waits for in a step.

Each section is a process of its own: one that fails or takes too long costs the others nothing. FOLDER/gpu.json is
written after each measurement. Exit code 1 where a section failed.
"""

import argparse
import contextlib
import datetime as dt
import importlib
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parents[1]), str(HERE.parents[1] / "pipeline")]

SECTIONS = {"right": 0.2, "teacher": 0.24, "student": 0.4, "feed": 0.1, "limits": 0.06}
"""Names, and shares of the time; what one leaves goes to those behind it."""
_LATE_S = 10.0  # after its end, until a section is killed
_PRELOADED = [
    "gpu_scene",
    "photos",
    "teachonce.student.training_loop",
    "teachonce.student.loader",
    "teachonce.cache.run_units",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="for everything")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="toy sizes: does it run at all")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by commas")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of gpu.json")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := sorted(set(wanted) - set(SECTIONS)):
        sys.exit(f"error: --only must be of {', '.join(SECTIONS)}. Got {unknown[0]}")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device must be cpu where there is no GPU. Got cuda")
    sys.exit(Bench(args.device, quick=args.quick, out=args.out).run(wanted, 60 * args.minutes))


class Bench:
    """The sections, and what they have told so far."""

    def __init__(self, device: str, *, quick: bool, out: Path) -> None:
        self._device, self._quick = device, quick
        self._path = out / "gpu.json"
        self._told: dict[str, Any] = {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "machine": machine(device),
            "quick": quick,
            "sections": {},
        }
        out.mkdir(parents=True, exist_ok=True)

    def run(self, wanted: list[str], seconds: float) -> int:
        """All sections; the exit code."""
        began = time.monotonic()
        print(self._told["machine"], flush=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        with tempfile.TemporaryDirectory(prefix="bench-gpu-") as place:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{place}/compiled"
            for number, name in enumerate(wanted):
                share = SECTIONS[name] / sum(SECTIONS[each] for each in wanted[number:])
                ends_s = time.monotonic() + share * (began + seconds - time.monotonic())
                self._section(context, name, Path(place), ends_s)
        print(self.table(), flush=True)
        failed = [section for section in self._told["sections"].values() if section["state"] == "failed"]
        return int(bool(failed))

    def _section(self, context: Any, name: str, folder: Path, ends_s: float) -> None:
        section: dict[str, Any] = {"state": "running", "measured": []}
        self._told["sections"][name] = section
        began = time.monotonic()
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(name, self._device, (self._quick, ends_s, folder), sender))
        process.start()
        sender.close()
        section["state"] = "cut off"
        while (left_s := ends_s + _LATE_S - time.monotonic()) > 0:
            if not receiver.poll(left_s):
                break
            try:
                message = receiver.recv()
            except EOFError:
                section |= {"state": "failed", "error": f"its process ended with code {process.exitcode}"}
                break
            if message.pop("ended", False):
                section |= message
                break
            section["measured"].append(message)
            print(f"{name}: {line(message)}", flush=True)
            self._write()
        _kill(process)
        section["seconds"] = round(time.monotonic() - began, 1)
        print(f"{name}: {section['state']} after {section['seconds']} s {section.get('error', '')}", flush=True)
        self._write()

    def _write(self) -> None:
        text = json.dumps(self._told, indent=1, ensure_ascii=False)
        draft = self._path.with_suffix(".partial")
        draft.write_text(text, encoding="utf-8")
        draft.replace(self._path)

    def table(self) -> str:
        """Everything that was measured, in Markdown."""
        lines = [f"{self._told['date']}, {self._told['machine']}", ""]
        for name, section in self._told["sections"].items():
            lines += [f"{name} ({section['state']}, {section['seconds']} s){_error(section)}", ""]
            if section["measured"]:
                lines += ["| what | measured | goal |", "|---|---|---|"]
                lines += [f"| {' | '.join(cells(figure))} |" for figure in section["measured"]]
                lines.append("")
        return "\n".join(lines)


def _error(section: dict[str, Any]) -> str:
    return f": {section['error'].strip().splitlines()[-1]}" if "error" in section else ""


def cells(figure: dict[str, Any]) -> tuple[str, str, str]:
    """A row of the table."""
    facts = {key: value for key, value in figure.items() if key not in {"name", "value", "unit", "goal", "met"}}
    more = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    goal = f"{figure['goal']}: {'met' if figure['met'] else '**missed**'}" if figure["goal"] else ""
    return figure["name"], f"{figure['value']} {figure['unit']}".strip() + (f" ({more})" if more else ""), goal


def line(figure: dict[str, Any]) -> str:
    """A measurement in one line."""
    name, value, goal = cells(figure)
    return f"{name} = {value}" + (f", {goal}" if goal else "")


def machine(device: str) -> str:
    """The line that a figure needs beside it."""
    cores = len(os.sched_getaffinity(0))
    card = "no GPU"
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False) if shutil.which(query[0]) else None
        card = answer.stdout.strip().splitlines()[0].replace(", ", ", driver ") if answer and answer.stdout else "a GPU"
    return f"{card}, torch {torch.__version__}, Python {platform.python_version()}, {cores} cores ({processor()})"


def processor() -> str:
    """The CPU's name."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    names = [row.partition(":")[2].strip() for row in text.splitlines() if row.startswith("model name")]
    return names[0] if names else platform.machine()


def _work(name: str, device: str, place: tuple[bool, float, Path], sender: Connection) -> None:
    """A section, in a process of its own and at the head of a group: its loaders end with it."""
    os.setsid()
    try:
        scene = importlib.import_module("gpu_scene").Scene(torch.device(device), *place, sender.send)
        importlib.import_module(f"gpu_{name}").measure(scene)
        sender.send({"ended": True, "state": "done"})
    except BaseException:
        sender.send({"ended": True, "state": "failed", "error": traceback.format_exc()})


def _kill(process: Any) -> None:
    process.join(1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


if __name__ == "__main__":
    main()
