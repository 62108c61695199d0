"""Threads against processes for the teacher's rendering, on the same two cores.

    python tests/bench/bench_pools.py [--rounds 9]

Batches of 64 views of 224 pixels from JPEGs of about 50 kB, under DeiT's policy without mixing, two of a kind and one
thread, in turn; views a second by the clock, without the start. Nothing else works beside them: a teacher on a GPU
would hold the interpreter now and then, which threads share and processes do not.
"""

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import Executor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import photos

from teachonce.cache import rendered_batches, renderer_choice
from teachonce.format import schema
from teachonce.shards import sample_reader

IMAGES, SEEDS, BATCH, QUALITY = 96, 4, 64, 88


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    samples = [sample_reader.Sample(row, str(row), data, 0) for row, data in enumerate(photos.jpegs(IMAGES, QUALITY))]
    recipe = schema.Recipe(teacher=photos.identity(224), policy=photos.views().policy, k="all", tail="none")
    pools = {
        "one thread": renderer_choice.start_pool("threads", 1),
        "two threads": renderer_choice.start_pool("threads", 2),
        "two processes": renderer_choice.start_pool("processes", 2),
    }
    for pool in pools.values():
        views_a_second(pool, samples, recipe)
    found: dict[str, list[float]] = {name: [] for name in pools}
    for _ in range(rounds):
        for name, pool in pools.items():
            found[name].append(views_a_second(pool, samples, recipe))
    for name, pool in pools.items():
        pool.shutdown()
        rates = found[name]
        print(f"{name}: {statistics.median(rates):,.0f} views/s ({min(rates):,.0f} to {max(rates):,.0f})")
    print(json.dumps(found))


def views_a_second(pool: Executor, samples: list[sample_reader.Sample], recipe: schema.Recipe) -> float:
    """Of all views of the images, by the clock."""
    groups = (rendered_batches.MixGroup((sample,), tuple(range(SEEDS))) for sample in samples)
    began = time.perf_counter()
    count = sum(
        len(batch.views) for batch in rendered_batches.render_ahead(groups, recipe, batch_size=BATCH, pool=pool)
    )
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
