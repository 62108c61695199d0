"""Repeated augmentation in the loader: views a second with three views of each image in a batch, against one.

    python tests/bench/bench_repeats.py

Two loader processes on two cores read the same tars joined with a cache, DeiT's augmentation at 224 pixels, unmixed; an
image is decoded once for its views. Photographs of 500 × 375 pixels, once of about 100 kB, near the mean of ImageNet's
training images (110 kB), once of about 30 kB. Beside the ratio stand the most that decoding once could give, from what
decoding and rendering take alone; the ratio of processor times where no loader process hands batches over; and what
handing over takes: processor time of the loader processes and of the one that receives, less that of one process.

Target: at least 1.5 × the views a second.
"""

import contextlib
import json
import multiprocessing
import operator
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import bench_step
import feed
import photos
import psutil

from teachonce.shards import decode
from teachonce.views import draw, render

IMAGES, ROWS, BATCH, ROUNDS, SIZE, REPEATS = 384, 192, 48, 9, 224, 3
COST_ROUNDS = 3
PASSES = 3
"""Over the images, of three views each, so that a run takes seconds."""


def plan_of(folder: Path, repeats: int) -> feed.Plan:
    """As many views with repeats as without."""
    return feed.Plan(
        shards=folder / "shards",
        cache=folder / f"{repeats}" / "train.zarr",
        size=SIZE,
        batch_size=BATCH,
        lanes=2,
        buffer=64,
        passes=PASSES * REPEATS // repeats,
        aug_seeds=REPEATS,
        seed=0,
        accept=(),
    )


def views_a_second(plan: feed.Plan) -> float:
    """By the clock, from the first batch to the last; the processes' start and end are not in it."""
    stream = feed.batches(plan, workers=2)
    next(stream)
    began, views, seconds = time.perf_counter(), 0.0, 0.0
    for batch in stream:
        views += float(batch.weight.sum())
        seconds = time.perf_counter() - began
    return views / seconds


def processor_ms(plan: feed.Plan, workers: int) -> float:
    """Of a view, in this process and in the loader's, after the first batch."""
    stream = feed.batches(plan, workers=workers)
    next(stream)
    loaders = [psutil.Process(process.pid) for process in multiprocessing.active_children()]
    began, views, used = _processor_s(loaders), 0.0, 0.0
    for batch in stream:
        views += float(batch.weight.sum())
        # The last ones end beside the last batch.
        with contextlib.suppress(psutil.NoSuchProcess):
            used = _processor_s(loaders) - began
    return 1e3 * used / views


def _processor_s(loaders: list[psutil.Process]) -> float:
    return time.process_time() + sum(sum(process.cpu_times()[:2]) for process in loaders)


def parts_ms(images: list[bytes]) -> tuple[float, float]:
    """Decoding an image and rendering a view of it, alone on one core."""
    policy = photos.views().policy
    began = time.process_time()
    decoded = [decode.rgb_pixels(data, "bench") for data in images]
    middle = time.process_time()
    for number, image in enumerate(decoded):
        render.to_pixels(image, draw.view_params(policy, f"{number}", 0), SIZE)
    done = time.process_time()
    return 1e3 * (middle - began) / len(images), 1e3 * (done - middle) / len(images)


def measured(quality: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shards = photos.shards(folder / "shards", IMAGES, ROWS, quality=quality)
        for repeats in (1, REPEATS):
            policy = photos.views().policy.model_copy(update={"repeats": repeats})
            bench_step.store(folder / f"{repeats}", shards, ROWS, k=10, seeds=REPEATS, policy=policy)
        plans = {repeats: plan_of(folder, repeats) for repeats in (1, REPEATS)}
        rates, alone_ms, handed_ms = ({repeats: list[float]() for repeats in plans} for _ in range(3))
        images, parts = photos.jpegs(64, quality), list[tuple[float, float]]()
        for _ in range(ROUNDS):
            for repeats, plan in plans.items():
                rates[repeats].append(views_a_second(plan))
                parts.append(parts_ms(images))
        for _ in range(COST_ROUNDS):
            for repeats, plan in plans.items():
                alone_ms[repeats].append(processor_ms(plan, 0))
                handed_ms[repeats].append(processor_ms(plan, 2) - alone_ms[repeats][-1])
    decode_ms, render_ms = map(statistics.median, zip(*parts, strict=True))
    ratios = [many / values for values, many in zip(rates[1], rates[REPEATS], strict=True)]
    return {
        "kB": round(statistics.mean(map(len, images)) / 1e3),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "views_a_s": {repeats: round(statistics.median(values)) for repeats, values in rates.items()},
        "decode_ms": round(decode_ms, 2),
        "render_ms": round(render_ms, 2),
        "one_process_ratio": round(statistics.median(map(operator.truediv, alone_ms[1], alone_ms[REPEATS])), 3),
        "handing_over_ms": {repeats: round(statistics.median(values), 2) for repeats, values in handed_ms.items()},
        "most": round((decode_ms + render_ms) / (decode_ms / REPEATS + render_ms), 3),
    }


def main() -> None:
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
    results = [measured(quality) for quality in (97, 75)]
    for result in results:
        print(
            "{kB} kB: three views of an image / one = {ratio} (target 1.5); decoding takes {decode_ms} ms and a view "
            "{render_ms} ms, so that at most {most} was there; in one process {one_process_ratio} of processor time; "
            "handing over takes {handing_over_ms[3]} ms a view".format(**result)
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
