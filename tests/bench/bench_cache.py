"""Cache stage against the teacher's forwards alone, on the same views in the same batches.

    python tests/bench/bench_cache.py

Target: at most 1.13 (tf_efficientnet_lite0 at 224 pixels, four aug seeds a decode, two cores).
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import photos

from teachonce.cache import cache_config, rendered_batches, run_units, unit_computation, unit_plan
from teachonce.core import allocator
from teachonce.shards import sample_reader
from teachonce.teacher import predictor, teacher_network

IMAGES, SEEDS, ROUNDS = 96, 4, 9


def main() -> None:
    allocator.keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = photos.shards(folder / "shards", IMAGES, IMAGES)
        settings = photos.teacher()
        network = teacher_network.build_network(settings, 1000)
        identity = teacher_network.save(folder / "teacher", network, settings, photos.CLASSES)
        device = teacher_network.default_device()
        teacher = predictor.Predictor(teacher_network.load(folder / "teacher", device), identity, device)
        job = run_units.create_job(
            shards,
            "train",
            identity,
            photos.views().policy,
            aug_seeds=SEEDS,
            settings=cache_config.CacheConfig(k=10, seeds_per_unit=SEEDS),
            scratch=folder / "units",
            batch_size=settings.batch_size,
            device=device.type,
        )
        item = unit_plan.enumerate_units(1, SEEDS, SEEDS)[0]
        with ThreadPoolExecutor(teacher_network.available_cpus()) as pool:
            stage_s, forward_s, render_s = measure(job, item, teacher, pool)
    ratios = [stage / forward for stage, forward in zip(stage_s, forward_s, strict=True)]
    result = {
        "forward_ms_a_view": 1e3 * statistics.median(forward_s) / (IMAGES * SEEDS),
        "stage_ms_a_view": 1e3 * statistics.median(stage_s) / (IMAGES * SEEDS),
        "render_ms_a_view": 1e3 * statistics.median(render_s) / (IMAGES * SEEDS),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    print(f"cache stage / forwards alone = {result['ratio']:.3f} (target 1.15)")
    print(json.dumps(result))


def measure(job, item, teacher, pool) -> tuple[list[float], list[float], list[float]]:
    """Seconds of the whole unit, of its forwards alone and of its rendering alone, round by round."""
    entry = job.entries[0]

    def batches():
        samples = sample_reader.verified_samples(entry, job.shards.path(entry))
        atoms = rendered_batches.mix_groups(samples, job.recipe, job.extent.tars[0], item.aug_seeds)
        return rendered_batches.render_ahead(atoms, job.recipe, batch_size=job.batch_size, pool=pool)

    views = [batch.views for batch in batches()]
    teacher.logits(views[0])
    stage_s, forward_s, render_s = [], [], []
    for _ in range(ROUNDS):
        shutil.rmtree(job.scratch, ignore_errors=True)
        forward_s.append(seconds(lambda: [teacher.logits(batch) for batch in views]))
        stage_s.append(seconds(lambda: unit_computation.compute(job, item, teacher, pool)))
        render_s.append(seconds(lambda: list(batches())))
    return stage_s, forward_s, render_s


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
