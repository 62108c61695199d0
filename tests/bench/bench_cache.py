"""Cache stage against the teacher's forwards alone, on the same views in the same batches.

    python tests/bench/bench_cache.py

Target: at most 1.15 (tf_efficientnet_lite0 at 224 pixels, four aug seeds a decode, two cores).
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

from pipeline.cache import config, plan
from pipeline.shards import read
from pipeline.teacher import feed, model, predict, run, unit

IMAGES, ROUNDS = 96, 5


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = photos.shards(folder / "shards", IMAGES, IMAGES)
        settings = photos.teacher()
        network = model.build(settings, 1000)
        identity = model.save(folder / "teacher", network, settings, photos.CLASSES)
        device = model.device()
        teacher = predict.Predictor(model.load(folder / "teacher", device), identity, device)
        seeds = 4
        job = run.job(
            shards, "train", identity, photos.views().policy, aug_seeds=seeds,
            settings=config.CacheConfig(k=10, seeds_per_unit=seeds), scratch=folder / "units", batch_size=settings.batch_size,
        )  # fmt: skip
        item = plan.units(1, seeds, seeds)[0]
        entry = job.entries[0]
        with ThreadPoolExecutor(model.cpus()) as pool:
            samples = read.verified(entry, shards.path(entry))
            batches = feed.batches(samples, job.recipe, item.aug_seeds, batch_size=job.batch_size, pool=pool)
            views = [batch.views for batch in batches]
            stage_s, forward_s, render_s = [], [], []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                for batch in views:
                    teacher.logits(batch)
                forward_s.append(time.perf_counter() - began)
                shutil.rmtree(folder / "units", ignore_errors=True)
                began = time.perf_counter()
                unit.compute(job, item, teacher, pool)
                stage_s.append(time.perf_counter() - began)
                began = time.perf_counter()
                samples = read.verified(entry, shards.path(entry))
                for _batch in feed.batches(samples, job.recipe, item.aug_seeds, batch_size=job.batch_size, pool=pool):
                    pass
                render_s.append(time.perf_counter() - began)
        count = IMAGES * seeds
        ratios = [stage / forward for stage, forward in zip(stage_s, forward_s, strict=True)]
        result = {
            "forward_ms_a_view": 1e3 * statistics.median(forward_s) / count,
            "stage_ms_a_view": 1e3 * statistics.median(stage_s) / count,
            "render_ms_a_view": 1e3 * statistics.median(render_s) / count,
            "ratio": statistics.median(ratios),
            "ratios": [round(ratio, 3) for ratio in ratios],
            "batch": list(views[0].shape),
        }
        print(f"cache stage / forwards alone = {result['ratio']:.3f} (target 1.15)")
        print(json.dumps(result))


if __name__ == "__main__":
    main()
