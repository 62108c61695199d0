"""The cache stage: the teacher's forwards alone, fed with rendered views, and in whole units as the stage has them."""

import functools
import itertools
import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import gpu_images
import timm
import torch
from gpu_scene import Scene, spread
from torch.utils.flop_counter import FlopCounterMode

from teachonce.cache import (
    cache_config,
    rendered_batches,
    renderer_choice,
    run_units,
    unit_computation,
    unit_lookup,
    unit_plan,
)
from teachonce.core import allocator
from teachonce.shards import index, sample_reader
from teachonce.teacher import predictor

SEEDS, ROWS, BATCH = 24, 256, 384


@dataclass(frozen=True)
class Stage:
    """A unit of the cache stage, and who answers it."""

    teacher: predictor.Predictor
    job: unit_lookup.Job
    item: unit_plan.Unit

    @property
    def views(self) -> int:
        return self.job.extent.tars[0].nsamples * SEEDS

    def atoms(self) -> Iterator[rendered_batches.MixGroup]:
        """What is rendered together."""
        entry, job = self.job.entries[0], self.job
        samples = sample_reader.verified_samples(entry, job.shards.path(entry))
        return rendered_batches.mix_groups(samples, job.recipe, job.extent.tars[0], self.item.aug_seeds)

    def batches(self, pool: Executor) -> Iterator[rendered_batches.ViewBatch]:
        """What the stage renders."""
        return rendered_batches.render_ahead(
            self.atoms(), self.job.recipe, batch_size=self.job.batch_size, pool=pool, ahead=2
        )

    def forward(self, pool: Executor) -> None:
        """Rendered views through the teacher, nothing kept."""
        for batch in self.batches(pool):
            self.teacher.answer(torch.from_numpy(batch.views))

    def whole(self, pool: Executor, *, overlapped: bool) -> None:
        """The unit as the stage computes and writes it."""
        unit_computation.compute(self.job, self.item, self.teacher, pool, overlapped=overlapped)


def measure(scene: Scene) -> None:
    allocator.keep_freed_memory()
    peak = matmul_tflops(scene)
    scene.note("a matrix product of 8,192³ in bfloat16", peak, "TFLOP/s")
    cores = 2 if scene.quick else len(os.sched_getaffinity(0))
    pools = {kind: renderer_choice.start_pool(kind, cores) for kind in ("threads", "processes")}
    thread = renderer_choice.start_pool("threads", 1)
    cells = [("regnety_160", "bfloat16"), ("resnet50", "bfloat16"), ("regnety_160", "float32")]
    rates: dict[str, float] = {}
    for name, precision in cells[:1] if scene.quick else cells:
        if scene.left_s() < (1 if scene.quick else 10):
            scene.skip(f"{name}, {precision}", "no time left")
            continue
        unit = stage(scene, name, precision)
        if not rates:
            rates = rendered(scene, unit, thread, pools)
        units(scene, f"{name}, {precision}", unit, pools, rates=rates, peak=peak)
    compiled(scene, "resnet50")
    for pool in (thread, *pools.values()):
        pool.shutdown(cancel_futures=True)


def compiled(scene: Scene, name: str) -> None:
    """Forwards of a compiled teacher, as `compile: true` in its configuration has them."""
    label = f"{name}, bfloat16, compiled: forwards alone"
    if scene.quick or scene.left_s() < 60:
        scene.skip(label, "toy sizes compile a student" if scene.quick else "no time left")
        return
    network = timm.create_model(name, num_classes=1000).eval().to(scene.device, memory_format=torch.channels_last)
    teacher = predictor.Predictor(
        network, stage(scene, name, "bfloat16").job.recipe.teacher, scene.device, compiled_for=BATCH
    )
    views = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8, device=scene.device)
    first_s = scene.seconds(lambda: teacher.answer(views))
    seconds = [scene.seconds(lambda: [teacher.answer(views) for _ in range(8)]) for _ in range(3)]
    scene.note(label, 8 * BATCH / statistics.median(seconds), "views/s", first_s=round(first_s, 1))


def stage(scene: Scene, name: str, precision: str) -> Stage:
    """A teacher of random weights, and a tar to answer."""
    teacher, identity = gpu_images.teacher(scene, name, precision)
    job = run_units.create_job(
        index.read(gpu_images.shards(scene, 1, ROWS)),
        "train",
        identity,
        gpu_images.policy(),
        aug_seeds=SEEDS,
        settings=cache_config.CacheConfig(k=10, seeds_per_unit=SEEDS),
        scratch=scene.folder / "units" / name,
        batch_size=24 if scene.quick else BATCH,
        device=scene.device.type,
    )
    return Stage(teacher, job, unit_plan.enumerate_units(1, SEEDS, SEEDS)[0])


def rendered(scene: Scene, unit: Stage, thread: Executor, pools: dict[str, Executor]) -> dict[str, float]:
    """Views a second of rendering alone."""
    rates = {}
    for name, pool in pools.items():
        # This starts its workers.
        next(unit.batches(pool))
        rates[name] = unit.views / scene.seconds(lambda pool=pool: list(unit.batches(pool)))
        scene.note(f"rendering by {name} of all cores", rates[name], "views/s")
    some = list(itertools.islice(unit.atoms(), 1 if scene.quick else 16))
    seconds = scene.seconds(lambda: [rendered_batches.render_group(atom, unit.job.recipe) for atom in some])
    rates["one core"] = sum(len(list(atom.views())) for atom in some) / seconds
    scene.note("rendering by one core", rates["one core"], "views/s")
    return rates


def units(
    scene: Scene, label: str, unit: Stage, pools: dict[str, Executor], *, rates: dict[str, float], peak: float
) -> None:
    """Forwards alone, fed, and whole units, round by round."""
    views = torch.from_numpy(next(unit.batches(pools["threads"])).views.copy()).to(scene.device)
    repeat = max(1, unit.views // len(views))
    best = max(("threads", "processes"), key=lambda kind: rates[kind])
    works: dict[str, Callable[[], object]] = {
        "bare": lambda: [unit.teacher.answer(views) for _ in range(repeat)],
        "fed": functools.partial(unit.forward, pools[best]),
        "whole": functools.partial(unit.whole, pools[best], overlapped=True),
        "in turn": functools.partial(unit.whole, pools[best], overlapped=False),
    }
    rounds = list(scene.rounds(works, 1 if scene.quick else 2))
    if not rounds:
        scene.skip(label, "no time left")
        return
    counts = {name: repeat * len(views) if name == "bare" else unit.views for name in works}
    rate = {name: statistics.median(counts[name] / seconds[name] for seconds in rounds) for name in works}
    with FlopCounterMode(display=False) as counter:
        unit.teacher.answer(views[:1])
    tflops = counter.get_total_flops() * rate["bare"] / 1e12
    scene.note(
        f"{label}: forwards alone",
        rate["bare"],
        "views/s",
        TFLOPs=round(tflops, 1),
        of_peak=f"{tflops / peak:.0%}",
        cores_that_feed_it=round(rate["bare"] / rates["one core"], 1),
    )
    scene.note(f"{label}: forwards fed by {best}", rate["fed"], "views/s")
    ceiling = min(rate["bare"], rates[best])
    scene.note(f"{label}: whole units of {unit.views} views, rendering by {best}", rate["whole"], "views/s")
    scene.note(
        f"{label}: whole units / the lower of forwards alone and rendering alone",
        rate["whole"] / ceiling,
        least=0.95,
        of_forwards=round(rate["whole"] / rate["bare"], 3),
        rounds=spread([unit.views / seconds["whole"] / ceiling for seconds in rounds]),
    )
    scene.note(f"{label}: whole units in turn, packed on the CPU", rate["in turn"], "views/s")


def matmul_tflops(scene: Scene) -> float:
    """What the device can do at most."""
    side = 256 if scene.quick else 8192
    left, right = (torch.randn(side, side, device=scene.device, dtype=torch.bfloat16) for _ in range(2))
    best_s = min(scene.seconds(lambda: [left @ right for _ in range(4)]) for _ in range(4)) / 4
    return 2 * side**3 / best_s / 1e12
