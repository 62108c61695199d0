"""Feeding two ranks against two bare loader processes, on the same two cores.

    python tests/bench/bench_ranks.py

A rank takes its lanes' part of each global batch from the feed, joined with the cache, proved and in its place, and
agrees with the other rank before each step, as the training loop does; nothing is trained. A bare process reads its
tars with WebDataset, decodes, renders the same views at 224 pixels and stacks as large batches; no cache, no checks, no
order, no other process.

Target: two ranks at least 0.93 of the views a second of two bare processes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import webdataset

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import bench_step
import feed
import photos

from teachonce.shards import decode
from teachonce.student import process_group
from teachonce.views import draw, render

IMAGES, ROWS, BATCH, PASSES, ROUNDS, SIZE = 1024, 256, 64, 2, 5, 224


def main() -> None:
    if len(sys.argv) == 3:
        folder, number = Path(sys.argv[1]), int(sys.argv[2])
        result = as_rank(folder) if number < 0 else as_bare(folder, number)
        (folder / f"result{result.pop('process')}.json").write_text(json.dumps(result))
        return
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shards = photos.shards(folder / "shards", IMAGES, ROWS)
        bench_step.store(folder, shards, ROWS, k=10, seeds=PASSES)
        rounds: dict[str, list[dict[str, float]]] = {"ranks": [], "bare": []}
        for _ in range(ROUNDS):
            for name, results in rounds.items():
                results.append(run(folder, name))
    wall = [ranks["wall"] / bare["wall"] for ranks, bare in zip(rounds["ranks"], rounds["bare"], strict=True)]
    cpu = [ranks["cpu"] / bare["cpu"] for ranks, bare in zip(rounds["ranks"], rounds["bare"], strict=True)]
    result = {
        "ratio": round(statistics.median(wall), 3),
        "ratios": [round(ratio, 3) for ratio in wall],
        "cpu_ratio": round(statistics.median(cpu), 3),
        **{
            f"{name}_views_a_s": round(statistics.median(result["wall"] for result in results))
            for name, results in rounds.items()
        },
    }
    print(f"two ranks {result['ranks_views_a_s']} views/s, two bare processes {result['bare_views_a_s']} views/s")
    print(f"ranks / bare = {result['ratio']} (target 0.93); by processor time {result['cpu_ratio']}")
    print(json.dumps(result))


def run(folder: Path, name: str) -> dict[str, float]:
    """Views a second of two processes, by the clock and by the processor."""
    script = [str(Path(__file__)), str(folder)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *script, "-1"]
    commands = [torchrun] if name == "ranks" else [[*script, "0"], [*script, "1"]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([sys.executable, *command], env=environment) for command in commands]
    codes = [process.wait() for process in processes]
    assert codes == [0] * len(codes)
    results = [json.loads((folder / f"result{number}.json").read_text()) for number in (0, 1)]
    return {clock: sum(result["views"] / result[clock] for result in results) for clock in ("wall", "cpu")}


def measured(batches: Iterator[int]) -> dict[str, float]:
    """Views and seconds after the first batch."""
    next(batches)
    began, began_cpu = time.perf_counter(), time.process_time()
    views = sum(batches)
    return {"views": views, "wall": time.perf_counter() - began, "cpu": time.process_time() - began_cpu}


def as_rank(folder: Path) -> dict[str, float]:
    plan = feed.Plan(
        shards=folder / "shards",
        cache=folder / "train.zarr",
        size=SIZE,
        batch_size=BATCH,
        lanes=4,
        buffer=64,
        passes=PASSES,
        aug_seeds=PASSES,
        seed=0,
        accept=("view_drift",),
    )
    with process_group.join_ranks() as world:

        def batches() -> Iterator[int]:
            for batch in feed.batches(plan, workers=0, rank=world.rank, ranks=world.size):
                world.all_sum([float(batch.weight.sum()), 0.0, 0.0])
                yield len(batch.keys)

        return {"process": world.rank, **measured(batches())}


def as_bare(folder: Path, number: int) -> dict[str, float]:
    policy = photos.views().policy
    tars = [str(path) for path in sorted((folder / "shards").glob("*.tar"))[number::2]]

    def batches() -> Iterator[int]:
        views = []
        for aug_seed in range(PASSES):
            for sample in webdataset.WebDataset(tars, shardshuffle=False):
                image = decode.rgb_pixels(sample["jpg"], sample["__key__"])
                views.append(render.to_pixels(image, draw.view_params(policy, sample["__key__"], aug_seed), SIZE))
                if len(views) == BATCH // 2:
                    yield len(np.stack(views))
                    views = []

    return {"process": number, **measured(batches())}


if __name__ == "__main__":
    main()
