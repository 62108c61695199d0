"""Two checkouts against each other: the same work in each, in turn, so that a machine's moods hit both.

    python tests/bench/pairs.py OLD_CHECKOUT [--rounds 11] [--only join]

A process in each checkout runs that checkout's code and waits for its turn: two steps of a student from the cache
(deit_tiny at 224 pixels, DeiT's mix and three repeats, 36 views), a unit of the cache stage (tf_efficientnet_lite0, 32
images under four seeds), joining 4,000 rows of ten classes fifty times, joining 32,000 rows of a hundred classes as
`bench_join` does (by tar, by block), and what feeds a student: two passes over the demo's digits, two over 96
photographs at 224 pixels. Processor time of one thread; printed is new / old: the median over the rounds and, of all
their medians resampled, the middle 95 %.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="another checkout of this repository")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", help="one of what is measured")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.old, args.only)
        return
    sides = [Side(args.old, args.only), Side(ROOT, args.only)]
    names = [args.only] if args.only else sides[0].names
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1 + args.rounds):
        for name in names:
            # Who is first changes, too.
            first, second = (sides[place].seconds(name) for place in ((0, 1) if number % 2 else (1, 0)))
            old, new = (first, second) if number % 2 else (second, first)
            if number:
                ratios[name].append(new / old)
    for side in sides:
        side.end()
    for name, values in ratios.items():
        low, high = interval(values)
        print(f"{name}: new / old = {statistics.median(values):.3f} ({low:.3f} to {high:.3f}), {len(values)} rounds")
    print(json.dumps({name: [round(value, 4) for value in values] for name, values in ratios.items()}))


def interval(values: list[float]) -> tuple[float, float]:
    """The middle 95 % of the medians of resampled rounds."""
    draws = np.random.Generator(np.random.Philox(key=0)).choice(values, (10_000, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(low), float(high)


class Side:
    """A checkout's process."""

    def __init__(self, checkout: Path, only: str | None) -> None:
        # Each has its own script, which knows its own modules.
        script = checkout.resolve() / "tests/bench/pairs.py"
        command = [sys.executable, script, checkout.resolve(), "--serve"]
        command += ["--only", only] if only else []
        self._process = subprocess.Popen(
            command,
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names: list[str] = json.loads(self._told())

    def seconds(self, name: str) -> float:
        """Processor time of some work there."""
        assert self._process.stdin
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return float(self._told())

    def end(self) -> None:
        """No more work."""
        self._process.communicate("")

    def _told(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        return line


def serve(checkout: Path, only: str | None) -> None:
    """Do what is asked on standard input, with a checkout's code."""
    sys.path[:0] = [str(checkout / "pipeline"), str(checkout / "tests" / "bench"), str(checkout / "tests" / "support")]
    with tempfile.TemporaryDirectory() as place:
        works = works_in(Path(place), only)
        print(json.dumps(list(works)), flush=True)
        for line in sys.stdin:
            began = time.process_time()
            works[line.strip()]()
            print(time.process_time() - began, flush=True)


def works_in(folder: Path, only: str | None) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    import torch

    from teachonce.core import allocator

    allocator.keep_freed_memory()
    torch.set_num_threads(1)
    works = {"student's step": step, "cache unit": cache_unit, "join": join, **JOINS, **FEEDS}
    return {name: work(folder) for name, work in works.items() if only in (None, name)}


def step(folder: Path) -> Callable[[], object]:
    """Two steps of a student from the cache."""
    import bench_step
    import photos

    from teachonce.student import row_source, student_spec
    from teachonce.views.view_policy import MixupCutmix

    shards = photos.shards(folder / "shards", 96, 96)
    policy = photos.views().policy.model_copy(update={"mix": MixupCutmix(), "repeats": 3})
    cache = bench_step.store(folder / "step", shards, 96, k=10, seeds=3, policy=policy)
    bench_step.STEPS = 2
    spec = student_spec.SoftSpec(model="bench", kind="soft", alpha=0.5, tau=3.0)
    return bench_step.Bench(spec, row_source.CachedRows(folder / "shards", cache, aug_seeds=3)).seconds_a_step


def cache_unit(folder: Path) -> Callable[[], object]:
    """A unit of the cache stage."""
    import photos
    import torch

    from teachonce.cache import cache_config, run_units, unit_computation, unit_plan
    from teachonce.teacher import predictor, teacher_network

    settings, cpu = photos.teacher(), torch.device("cpu")
    network = teacher_network.build_network(settings, 1000)
    identity = teacher_network.save(folder / "teacher", network, settings, photos.CLASSES)
    teacher = predictor.Predictor(teacher_network.load(folder / "teacher", cpu), identity, cpu)
    job = run_units.create_job(
        photos.shards(folder / "few", 32, 32),
        "train",
        identity,
        photos.views().policy,
        aug_seeds=4,
        settings=cache_config.CacheConfig(k=10, seeds_per_unit=4),
        scratch=folder / "units",
        batch_size=64,
        device="cpu",
    )
    pool, item = ThreadPoolExecutor(1), unit_plan.enumerate_units(1, 4, 4)[0]
    return lambda: unit_computation.compute(job, item, teacher, pool)


def join(folder: Path) -> Callable[[], object]:
    """Fifty times 4,000 rows, from a store opened anew."""
    import bench_step
    import photos

    from teachonce.store import store_reader
    from teachonce.student import lane_reader, loader

    store = bench_step.store(folder / "join", photos.shards(folder / "many", 1000, 1000), 1000, k=10, seeds=4)

    def once() -> None:
        cache = store_reader.open(store)
        for aug_seed in range(4):
            cache.keys(0)
            rows = cache.block(0, aug_seed, lse=False).arrays()
            items = [lane_reader.JoinedView("", 0, rows, row) for row in range(1000)]
            for start in range(0, len(items), 32):
                loader.stack_rows(items[start : start + 32])

    return lambda: [once() for _ in range(50)]


def join_by_tar(folder: Path) -> Callable[[], object]:
    """`bench_join`, all seeds of a tar at once."""
    return bench_join_way(folder, "by_tar")


def join_by_block(folder: Path) -> Callable[[], object]:
    """`bench_join`, block by block."""
    return bench_join_way(folder, "by_block")


def bench_join_way(folder: Path, way: str) -> Callable[[], object]:
    import bench_join

    from teachonce.core import hashing
    from teachonce.store import store_reader

    place = folder / way
    place.mkdir()
    keys = bench_join.made_up_keys()
    cache = store_reader.open(bench_join.store(place, keys))
    orders = [hashing.permutation(bench_join.ROWS, "bench", tar) for tar in range(bench_join.TARS)]
    return lambda: getattr(bench_join, way)(cache, keys, orders)


def feed_digits(folder: Path) -> Callable[[], object]:
    """Two passes over 600 digits, with the demo's policy, size and tars."""
    import io

    from PIL import Image
    from sklearn.datasets import load_digits

    from teachonce.core import config
    from teachonce.prepare import tar_writer
    from teachonce.shards import index
    from teachonce.views import views_config

    digits = load_digits()
    samples = []
    for number in range(600):
        buffer = io.BytesIO()
        Image.fromarray((digits.images[number] * 15).astype(np.uint8)).save(buffer, "PNG")
        samples.append(tar_writer.EncodedImage(f"{number:06d}", "png", buffer.getvalue(), int(digits.target[number])))
    place = folder / "digits"
    place.mkdir()
    entries = list(tar_writer.write_samples(samples, place, split="train", rows_per_tar=100))
    names = tuple(map(str, range(10)))
    index.write(place, base=place, classes=names, rows_per_tar=100, shardlist=entries)
    policy = config.load(ROOT / "configs/views/digits.yaml", views_config.ViewsConfig).policy
    return passes(place, folder / "digits store", policy, rows=100, size=32)


def feed_photographs(folder: Path) -> Callable[[], object]:
    """Two passes over 96 JPEGs of 500 x 375 pixels, with DeiT's policy at 224."""
    import photos

    photos.shards(folder / "photographs", 96, 48)
    return passes(folder / "photographs", folder / "photographs store", photos.views().policy, rows=48, size=224)


def passes(shards: Path, store: Path, policy: object, *, rows: int, size: int) -> Callable[[], object]:
    """Go twice through the views of a plan."""
    import bench_step
    import feed

    from teachonce.shards import index

    cache = bench_step.store(store, index.read(shards), rows, k=5, seeds=2, policy=policy)
    plan = feed.Plan(
        shards=shards,
        cache=cache,
        size=size,
        batch_size=24,
        lanes=4,
        buffer=200,
        passes=2,
        aug_seeds=2,
        seed=0,
        accept=(),
    )
    return lambda: [batch.label for batch in feed.batches(plan, workers=0)]


JOINS = {"bench_join by tar": join_by_tar, "bench_join by block": join_by_block}
FEEDS = {"feed of digits": feed_digits, "feed of photographs": feed_photographs}


if __name__ == "__main__":
    main()
