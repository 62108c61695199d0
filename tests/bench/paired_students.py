"""The same students trained by two checkouts: does a change of the code change what they learn?

    python tests/bench/paired_students.py BEFORE AFTER [--seeds 8] [--kinds soft3,plain] [--jobs 8] [--out paired.json]

Each checkout is a folder of this project with a params.yaml and its own artifacts/shards and artifacts/teacher. Both
must hold the same images and the same teacher, so that only the code differs; copy them. Each computes its own cache,
if it has none yet, and trains the students of params.yaml's `students` named by --kinds once per seed, `jobs` at a
time. Printed, for each kind and head: top-1 of both by seed, and the paired difference with its 95 % interval
(Student's t, a seed being a pair).
"""

import argparse
import importlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import scipy.stats
import yaml

CONFIGS = ["--params", "params.yaml", "--configs", "configs", "--shards", "artifacts/shards"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--kinds", default="soft,plain", help="names of students in params.yaml, by commas")
    parser.add_argument("--jobs", type=int, default=1, help="students at a time in each checkout")
    parser.add_argument("--out", type=Path, help="JSON of all figures, added to as students end")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    if args.work:
        work(kinds, args.seeds, args.jobs)
        return
    with ThreadPoolExecutor(2) as pool:
        sides = list(pool.map(lambda folder: results(folder.resolve(), args), (args.before, args.after)))
    if args.out:
        args.out.write_text(json.dumps({"before": sides[0], "after": sides[1]}, indent=1), "utf-8")
    for kind in kinds:
        for head in sorted(set(sides[0][f"{kind}-0"]) - {"seconds"}):
            print(row(kind, head, *([side[f"{kind}-{seed}"][head] for seed in range(args.seeds)] for side in sides)))


def row(kind: str, head: str, before: list[float], after: list[float]) -> str:
    """A line of the table, in points of accuracy."""
    differences = [100 * (new - old) for old, new in zip(before, after, strict=True)]
    middle, count = statistics.mean(differences), len(differences)
    half = float(scipy.stats.t.ppf(0.975, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    means = " against ".join(
        f"{100 * statistics.mean(side):.2f} ± {100 * statistics.stdev(side):.2f}" for side in (after, before)
    )
    return (
        f"{kind}, {head}: {means}; difference {middle:+.2f} ({middle - half:+.2f} to {middle + half:+.2f}), n {count}"
    )


def results(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Top-1 of each student of a checkout by head."""
    command = [sys.executable, __file__, ".", ".", "--work", "--kinds", args.kinds]
    command += ["--seeds", str(args.seeds), "--jobs", str(args.jobs)]
    paths = f"{folder / 'pipeline'}:{folder}:{os.environ.get('PYTHONPATH', '')}"
    found: dict[str, dict[str, float]] = {}
    with (
        (folder / "paired.log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            found |= json.loads(line)
            print(folder.name, line.strip(), flush=True)
    if process.returncode:
        sys.exit(f"error: {folder}: ended with {process.returncode}; see {folder / 'paired.log'}")
    return found


def work(kinds: list[str], seeds: int, jobs: int) -> None:
    """In a checkout: its cache, then all students, each a fork of this process that has imported everything."""
    begun = time.monotonic()
    if not Path("artifacts/cache/train.zarr").exists():
        words = [
            *CONFIGS,
            "--teacher",
            "artifacts/teacher",
            "--scratch",
            ".teachonce/units",
            "--out",
            "artifacts/cache",
        ]
        words += ["--metrics", "artifacts/records/cache.json", "--cost", "artifacts/costs/cache.json"]
        subprocess.run([sys.executable, "-m", "stages.cache", *words], check=True, stdout=sys.stderr)
    print(json.dumps({"cache": {"seconds": round(time.monotonic() - begun, 1)}}), flush=True)
    for module in ("student.train_cached", "evaluate.evaluate_command", "student.train_command", "student.student_run"):
        importlib.import_module(f"teachonce.{module}")
    chosen = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    students = {f"{kind}-{seed}": {**chosen["students"][kind], "seed": seed} for seed in range(seeds) for kind in kinds}
    Path("paired.yaml").write_text(yaml.safe_dump({**chosen, "students": students}), "utf-8")
    context = get_context("fork")
    with context.Pool(jobs, maxtasksperchild=1) as pool:
        for result in pool.imap_unordered(top1, students):
            print(json.dumps(result), flush=True)


def top1(student: str) -> dict[str, Any]:
    """Train and evaluate one."""
    train = importlib.import_module("teachonce.student.train_command")
    evaluate = importlib.import_module("teachonce.evaluate.evaluate_command")
    common = ["--student", student, "--params", "paired.yaml", *CONFIGS[2:]]
    record = Path(f"artifacts/records/{student}.json")
    began = time.monotonic()
    if not record.exists():
        train.main(
            [
                *common,
                *_options("cache artifacts/cache/train.zarr scratch .teachonce/train"),
                *_options(f"out artifacts/students/{student} curves metrics/train/{student}"),
                *_options(f"cost artifacts/costs/{student}.json"),
            ]
        )
        evaluate.main(
            [
                *common,
                *_options(f"cache artifacts/cache/val.zarr weights artifacts/students/{student}"),
                *_options(f"out artifacts/predictions/{student} metrics {record}"),
                *_options(f"cost artifacts/costs/evaluate-{student}.json"),
            ]
        )
    heads = json.loads(record.read_text("utf-8"))["heads"]
    return {
        student: {name: head["top1"] for name, head in heads.items()} | {"seconds": round(time.monotonic() - began, 1)}
    }


def _options(words: str) -> list[str]:
    """Names and values in turn."""
    return [word if place % 2 else f"--{word}" for place, word in enumerate(words.split())]


if __name__ == "__main__":
    main()
