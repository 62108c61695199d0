"""A student's step from the cache against the same step without distillation; joining rows, per sample.

    python tests/bench/bench_step.py

Targets: step ratio at most 1.05 (deit_tiny at 224 pixels, batch 32, two cores); join at most 8 µs a sample with tars
of 1,000 rows and more.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import photos

from pipeline.cache import codec, identity, read, schema, write
from pipeline.shards import decode
from pipeline.shards import read as shards_read
from pipeline.student import config, feed, lane, learner, loop, ranks, schedule
from pipeline.views import mix

STEPS, ROUNDS = 6, 5


def store(folder: Path, shards, rows: int, *, k: int, seeds: int) -> Path:
    """A cache of made-up logits: timing does not care what a teacher said."""
    settings = photos.teacher()
    recipe = schema.Recipe(
        teacher=schema.Teacher(
            architecture="bench", arguments={}, weights_sha256="0" * 64, size=settings.size, mean=settings.mean,
            std=settings.std, precision="float32", num_classes=1000,
            classes_sha256=schema.classes_sha256(photos.CLASSES),
        ),
        policy=photos.views().policy, k=k, tail="flat",
    )  # fmt: skip
    tars = identity.extent_tars(shards, "train")
    extent = schema.Extent(tars=tars, aug_seeds=seeds, seeds_per_unit=seeds, rows_per_tar=rows)
    random = np.random.Generator(np.random.Philox(key=0))
    units = []
    for number, tar in enumerate(tars):
        entry = shards.index.shardlist[number]
        samples = list(shards_read.verified(entry, shards.path(entry)))
        first = mix.render(
            recipe.policy, [decode.rgb(samples[0].image, "bench")], [samples[0].key], 0, recipe.teacher.size
        )[0]
        answers = write.Answers(
            [codec.pack(3 * random.standard_normal((tar.nsamples, 1000), np.float32), k) for _ in range(seeds)],
            [sample.key for sample in samples], first,
        )  # fmt: skip
        record = schema.Unit(
            tar=number, group=0, correct=0, views=tar.nsamples * seeds, objects={}, fidelity={}, versions={},
            device="cpu",
            canary=schema.Canary(row=0, aug_seed=0, sha256=identity.pixels_sha256(first)),
        )  # fmt: skip
        units.append((folder / f"unit{number}", write.unit(folder / f"unit{number}", recipe, extent, answers, record)))
    write.store(folder / "train.zarr", recipe, extent, units)
    return folder / "train.zarr"


def seconds_a_step(
    settings: config.StudentConfig, student: config.Student, stream: Iterator[feed.Batch], who: learner.Learner
) -> float:
    began = time.perf_counter()
    for number in range(STEPS):
        loop.step(who, next(stream), settings, student, number)
    return (time.perf_counter() - began) / STEPS


def steps(folder: Path) -> dict[str, object]:
    shards = photos.shards(folder / "shards", 256, 256)
    cache = store(folder, shards, 256, k=10, seeds=1)
    settings = config.StudentConfig(
        architecture="deit_tiny_patch16_224", distilled_architecture="deit_tiny_distilled_patch16_224", size=224,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), epochs=1000, batch_size=32, lanes=2, buffer=32, lr=1e-4,
    )  # fmt: skip
    students = {
        # The same network both times: what is compared is the teacher's part of the step.
        "none": config.Student(model="bench", kind="none", token=True),
        "soft": config.Student(model="bench", kind="soft", alpha=0.5, tau=3.0),
    }
    plan = feed.Plan(
        shards=folder / "shards", cache=cache, size=224, batch_size=32, lanes=2, buffer=32, epochs=1000, aug_seeds=1,
        seed=0, accept=("view_drift",),
    )  # fmt: skip
    who = {
        name: learner.make(
            settings, student, num_classes=1000, length=schedule.Schedule(8, 8000, 40), team=ranks.alone()
        )
        for name, student in students.items()
    }
    stream = {name: feed.batches(plan, workers=0) for name in students}
    for name, student in students.items():
        seconds_a_step(settings, student, stream[name], who[name])
    ratios, found = [], {name: [] for name in students}
    for _ in range(ROUNDS):
        for name, student in students.items():
            found[name].append(seconds_a_step(settings, student, stream[name], who[name]))
        ratios.append(found["soft"][-1] / found["none"][-1])
    medians = {f"{name}_s_a_step": statistics.median(values) for name, values in found.items()}
    return {"step_ratio": statistics.median(ratios), "step_ratios": [round(ratio, 3) for ratio in ratios], **medians}


def join(folder: Path) -> dict[str, float]:
    """Keys, blocks and rows into batches, per sample, from a store opened anew each round; beside rendering a view."""
    shards = photos.shards(folder / "join", 1000, 1000)
    cache_path = store(folder, shards, 1000, k=10, seeds=4)
    entry = shards.index.shardlist[0]
    sample = next(shards_read.verified(entry, shards.path(entry)))
    view = np.zeros((3, 1, 1), np.uint8)
    found, rendered = [], []
    for _ in range(ROUNDS):
        cache = read.open(cache_path)
        took = 0.0
        for aug_seed in range(4):
            began = time.perf_counter()
            cache.keys(0)
            rows = cache.block(0, aug_seed, lse=False).arrays()
            took += time.perf_counter() - began
            # A sample has an item with or without a teacher.
            items = [lane.Item((view,), "", 0, rows, row) for row in range(1000)]
            began = time.perf_counter()
            for start in range(0, len(items), 32):
                feed.gather(items[start : start + 32])
            took += time.perf_counter() - began
        found.append(took / 4000)
        began = time.perf_counter()
        for aug_seed in range(20):
            mix.render(
                cache.recipe.policy,
                [decode.rgb(sample.image, "bench")],
                [sample.key],
                aug_seed,
                cache.recipe.teacher.size,
            )[0]
        rendered.append((time.perf_counter() - began) / 20)
    ratio = statistics.median(one / other for one, other in zip(found, rendered, strict=True))
    return {"join_us_a_sample": 1e6 * statistics.median(found), "join_to_render": ratio}


def main() -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        result = {**steps(Path(one)), **join(Path(two))}
    print(f"step from cache / step without distillation = {result['step_ratio']:.3f} (target 1.05)")
    print(f"join = {result['join_us_a_sample']:.1f} µs a sample (target 8)")
    print(f"join / decoding and rendering the view = {result['join_to_render']:.4f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
