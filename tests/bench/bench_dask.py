"""Two Dask workers of one thread each against two bare processes that forward views rendered beforehand.

    python tests/bench/bench_dask.py

On the same two cores: tf_efficientnet_lite0 at 224 pixels, DeiT's augmentation, units of 24 photographs under 4 aug
seeds. The workers decode, render, forward, pack, measure fidelity and write; their rate is that between the end of an
early and of a late unit, which leaves start-up out. Target: at least 0.93 of both processes' bare forwards together.

The bare processes are torch as it comes. Others keep freed memory as the stage's processes do (`core.allocator`), and
what stands between them and the workers is told apart: they also do whole units without Dask. Cores that are busy with
forwards have no room to render beside them: `units_to_kept` is what rendering and writing leave of those forwards, and
`dask_to_units` what Dask costs on top.
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import photos
import torch

from teachonce.cache import (
    cache_config,
    executors,
    rendered_batches,
    run_units,
    unit_lookup,
    unit_plan,
    unit_worker,
)
from teachonce.core import allocator
from teachonce.shards import sample_reader
from teachonce.teacher import predictor, teacher_network

PER_TAR, SEEDS, ROUNDS = 24, 4, 3
DASK_UNITS, EARLY, LATE = 12, 2, 9
"""Units of a round; measured is from the end of an early one to that of a late one, behind which a core is idle."""
BARE_UNITS, FORWARD_S = 4, 8.0
TARS = ROUNDS * (DASK_UNITS + 2 * BARE_UNITS) + 4


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = make(folder)
        items = list(unit_plan.enumerate_units(TARS, SEEDS, SEEDS))
        bare, keeping = ([Bare(folder, job, core, keep=keep) for core in cores] for keep in (False, True))
        rates: dict[str, list[float]] = {"forwards": [], "kept": [], "units": [], "dask": []}
        with executors.open_executor(folder / "teacher", 2) as dask:
            list(dask.run(job, [items.pop() for _ in range(4)]))
            for _ in range(ROUNDS):
                rates["forwards"].append(together(bare, [None, None]))
                rates["kept"].append(together(keeping, [None, None]))
                rates["units"].append(together(keeping, [[items.pop() for _ in range(BARE_UNITS)] for _ in keeping]))
                rates["dask"].append(steady(dask, job, [items.pop() for _ in range(DASK_UNITS)]))
        for process in bare + keeping:
            process.end()
    result = {f"{name}_views_a_s": round(statistics.median(values), 1) for name, values in rates.items()}
    for kind, reference in (("dask", "forwards"), ("dask", "kept"), ("units", "kept"), ("dask", "units")):
        ratios = [a / b for a, b in zip(rates[kind], rates[reference], strict=True)]
        result[f"{kind}_to_{reference}"] = round(statistics.median(ratios), 3)
    print(f"two Dask workers / two bare forward processes = {result['dask_to_forwards']} (target 0.93)")
    print(f"of forwards that keep their memory {result['dask_to_kept']}: ", end="")
    print(f"rendering and writing leave {result['units_to_kept']}, Dask {result['dask_to_units']}")
    print(json.dumps(result))


def make(folder: Path) -> unit_lookup.Job:
    settings = photos.teacher()
    identity = teacher_network.save(
        folder / "teacher", teacher_network.build_network(settings, 1000), settings, photos.CLASSES
    )
    shards = photos.shards(folder / "shards", TARS * PER_TAR, PER_TAR)
    return run_units.create_job(
        shards,
        "train",
        identity,
        photos.views().policy,
        aug_seeds=SEEDS,
        settings=cache_config.CacheConfig(k=10, seeds_per_unit=SEEDS),
        scratch=folder / "units",
        batch_size=settings.batch_size,
        device="cpu",
    )


def steady(dask: executors.Executor, job: unit_lookup.Job, items: list[unit_plan.Unit]) -> float:
    """Views a second between the end of an early unit and that of a late one."""
    ends = []
    for result in dask.run(job, items):
        assert result.computed, result.error
        ends.append(time.perf_counter())
    return (LATE - EARLY) * PER_TAR * SEEDS / (ends[LATE] - ends[EARLY])


class Bare:
    """A process pinned to a core, with the teacher loaded and a unit's views rendered."""

    def __init__(self, folder: Path, job: unit_lookup.Job, core: int, *, keep: bool) -> None:
        context = multiprocessing.get_context("spawn")
        job = replace(job, scratch=folder / f"bare-{keep}-{core}")
        self.pipe, far_end = context.Pipe()
        self._process = context.Process(target=serve, args=(far_end, folder / "teacher", job, core, keep))
        self._process.start()
        assert self.pipe.recv() == "ready"

    def end(self) -> None:
        self.pipe.send("end")
        self._process.join()


def together(bare: list[Bare], tasks: list) -> float:
    """Views a second of all processes while they work at the same time."""
    for process, task in zip(bare, tasks, strict=True):
        process.pipe.send(task)
    return sum(process.pipe.recv() for process in bare)


def serve(pipe: Connection, folder: Path, job: unit_lookup.Job, core: int, keep: bool) -> None:
    if keep:
        allocator.keep_freed_memory()
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    device = torch.device("cpu")
    teacher = predictor.Predictor(teacher_network.load(folder, device), job.recipe.teacher, device)
    producer = unit_worker.Worker(folder, device, 1)
    with ThreadPoolExecutor(1) as pool:
        samples = sample_reader.verified_samples(job.entries[0], job.shards.path(job.entries[0]))
        atoms = rendered_batches.mix_groups(samples, job.recipe, job.extent.tars[0], range(SEEDS))
        batches = rendered_batches.render_ahead(atoms, job.recipe, batch_size=job.batch_size, pool=pool)
        views = [batch.views for batch in batches]
    teacher.logits(views[0])
    producer.run_unit(job, unit_plan.enumerate_units(TARS, SEEDS, SEEDS)[core % 2])
    pipe.send("ready")
    while (task := pipe.recv()) != "end":
        pipe.send(forwards(teacher, views) if task is None else whole(producer, job, task))
    producer.close()


def forwards(teacher: predictor.Predictor, views: list) -> float:
    done, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < FORWARD_S:
        for batch in views:
            teacher.logits(batch)
            done += len(batch)
    return done / took


def whole(producer: unit_worker.Worker, job: unit_lookup.Job, items: list[unit_plan.Unit]) -> float:
    began = time.perf_counter()
    for item in items:
        result = producer.run_unit(job, item)
        assert result.computed, result.error
    return len(items) * PER_TAR * SEEDS / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
