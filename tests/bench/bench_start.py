"""How long a stage takes to start: processor time until it has read its command line, and with all that it may import.

    python tests/bench/bench_start.py [OLD_CHECKOUT] [--rounds 9]

In turn with the same stages of another checkout, where one is given. The second figure imports every module of this
project that the stage reaches, also those that it imports only where it needs them; what an old checkout's stage
imports it imports at once.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGES = ("check", "prepare", "teacher", "cache", "audit", "train", "evaluate", "report")
EVERYTHING = """
import importlib, os, sys
sys.path[:0] = ["pipeline", "."]
from teachonce.core import import_closure
for path in sorted(import_closure.module_files(os.path.abspath("stages/{stage}.py"))):
    if path.startswith("teachonce/") and not path.endswith("__.py"):
        importlib.import_module(path.removesuffix(".py").replace("/", "."))
"""


def processor_s(command: list[str], checkout: Path) -> float:
    """Seconds of processor time of a command that imports, in a checkout."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", nargs="?", type=Path, help="another checkout of this repository")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    columns = {
        "old: --help": (lambda stage: ["-m", f"stages.{stage}", "--help"], args.old),
        "--help": (lambda stage: ["-m", f"stages.{stage}", "--help"], ROOT),
        "everything": (lambda stage: ["-c", EVERYTHING.format(stage=stage)], ROOT),
    }
    columns = {title: column for title, column in columns.items() if column[1]}
    print(f"{'stage':10}", *(f"{title:>12}" for title in columns), "   processor time in s, median")
    for stage in STAGES:
        seconds: dict[str, list[float]] = {title: [] for title in columns}
        for _ in range(args.rounds):
            for title, (command, checkout) in columns.items():
                if (checkout / f"stages/{stage}.py").is_file():
                    seconds[title].append(processor_s(command(stage), checkout))
        medians = (f"{statistics.median(values):12.2f}" if values else f"{'-':>12}" for values in seconds.values())
        print(f"{stage:10}", *medians, flush=True)


if __name__ == "__main__":
    main()
