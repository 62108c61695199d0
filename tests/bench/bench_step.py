"""A student's step from the cache, with DeiT's whole recipe; joining rows, per sample.

    python tests/bench/bench_step.py

deit_tiny at 224 pixels with views of DeiT's augmentation, mixup, cutmix and three repeats, loaded in the same process:
- against the same step of a student that distils nothing, on the same views without a cache: at most 1.05 of it;
- a step with a live teacher (tf_efficientnet_lite0) against the step from the cache: at least 0.95 of
  (student + teacher) / student, where the teacher's part is its forward pass over the batch, alone.
Joining: at most 8 µs a sample with tars of 1,000 rows and more.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import timm

sys.path.insert(0, str(Path(__file__).parent))
import photos

from teachonce.cache import store_writer
from teachonce.format import codec, schema
from teachonce.shards import decode, sample_reader
from teachonce.store import compatibility, replay, store_reader
from teachonce.student import (
    batching,
    lane_reader,
    loader,
    process_group,
    row_source,
    schedule,
    student_spec,
    train_config,
    trainer,
)
from teachonce.teacher import predictor
from teachonce.tools.live import live_rows
from teachonce.views import mixing
from teachonce.views.view_policy import MixupCutmix, Policy

STEPS, ROUNDS = 4, 5
SETTINGS = train_config.TrainConfig(
    architecture="deit_tiny_patch16_224",
    distilled_architecture="deit_tiny_distilled_patch16_224",
    size=224,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    epochs=1000,
    batch_size=36,
    lanes=2,
    buffer=32,
    lr=1e-4,
)


def store(folder: Path, shards, rows: int, *, k: int, seeds: int, policy: Policy | None = None) -> Path:
    """A cache of made-up logits: timing does not care what a teacher said."""
    settings = photos.teacher()
    recipe = schema.Recipe(
        teacher=photos.identity(settings.size),
        policy=policy or photos.views().policy,
        k=k,
        tail="flat",
    )
    tars = compatibility.extent_tars(shards, "train")
    extent = schema.Extent(tars=tars, aug_seeds=seeds, seeds_per_unit=seeds, rows_per_tar=rows)
    random = np.random.Generator(np.random.Philox(key=0))
    units = []
    for number, tar in enumerate(tars):
        entry = shards.index.shardlist[number]
        with sample_reader.open_tar(entry, shards.path(entry)) as opened:
            samples, first = list(opened), replay.render_view(recipe, tar, opened, 0, 0)
        answers = store_writer.UnitRows(
            [codec.pack(3 * random.standard_normal((tar.nsamples, 1000), np.float32), k) for _ in range(seeds)],
            [sample.key for sample in samples],
            first,
        )
        record = schema.UnitRecord(
            tar=number,
            group=0,
            correct=0,
            views=tar.nsamples * seeds,
            objects={},
            fidelity={},
            versions={},
            device="cpu",
            canary=schema.Canary(row=0, aug_seed=0, sha256=compatibility.pixels_sha256(first)),
        )
        units.append(
            (
                folder / f"unit{number}",
                store_writer.write_unit(folder / f"unit{number}", recipe, extent, answers, record),
            )
        )
    store_writer.assemble(folder / "train.zarr", recipe, extent, units)
    return folder / "train.zarr"


class Unanswered(live_rows.LiveRows):
    """Views for a teacher that nobody asks."""

    def answer(self, batch: batching.Batch) -> batching.Batch:
        return batch


class Bench:
    """One student in training."""

    def __init__(self, spec: student_spec.StudentSpec, source: row_source.RowSource) -> None:
        student, world = student_spec.Student("bench", spec, SETTINGS), process_group.single_process()
        self.trainer = trainer.Trainer(student, num_classes=1000, length=schedule.Schedule(8, 8000, 40), world=world)
        self.stream = map(source.answer, loader.iter_batches(source, student, 1000, world=world))

    def seconds_a_step(self) -> float:
        began = time.perf_counter()
        for number in range(STEPS):
            self.trainer.train_step(next(self.stream), number)
        return (time.perf_counter() - began) / STEPS


def steps(folder: Path) -> dict[str, object]:
    shards = photos.shards(folder / "shards", 256, 256)
    policy = photos.views().policy.model_copy(update={"mix": MixupCutmix(), "repeats": 3})
    cache = store(folder, shards, 256, k=10, seeds=3, policy=policy)
    cached = row_source.CachedRows(folder / "shards", cache, aug_seeds=3)
    recipe = cached.cache.recipe
    identity, soft = recipe.teacher, student_spec.SoftSpec(model="bench", kind="soft", alpha=0.5, tau=3.0)
    network = timm.create_model(photos.teacher().architecture, num_classes=1000).eval()
    device = process_group.single_process().device
    teacher = predictor.Predictor(network.to(device), identity, device)
    live = live_rows.LiveRows(folder / "shards", recipe, aug_seeds=3, teacher=teacher)
    bare = Unanswered(folder / "shards", recipe, aug_seeds=3)
    students = {
        # The same network every time: what is compared is the teacher's part of the step.
        "none": Bench(student_spec.PlainSpec(model="bench", kind="none", token=True), bare),
        "cache": Bench(soft, cached),
        "live": Bench(soft, live),
    }
    views = next(loader.iter_batches(bare, workers=0)).asked
    seconds: dict[str, list[float]] = {name: [] for name in (*students, "teacher")}
    for number in range(1 + ROUNDS):
        for name, student in students.items():
            seconds[name].append(student.seconds_a_step())
        began = time.perf_counter()
        for _ in range(STEPS):
            teacher.answer(views).cpu()
        seconds["teacher"].append((time.perf_counter() - began) / STEPS)
        if not number:
            seconds = {name: [] for name in seconds}
    rounds = [dict(zip(seconds, values, strict=True)) for values in zip(*seconds.values(), strict=True)]
    ratios = {
        "step_ratio": [by_name["cache"] / by_name["none"] for by_name in rounds],
        "gain": [by_name["live"] / by_name["cache"] for by_name in rounds],
        "gain_of_ideal": [
            by_name["live"] / by_name["cache"] / (1 + by_name["teacher"] / by_name["none"]) for by_name in rounds
        ],
    }
    return {
        **{name: round(statistics.median(values), 3) for name, values in ratios.items()},
        **{f"{name}s": [round(value, 3) for value in values] for name, values in ratios.items()},
        **{f"{name}_s_a_step": round(statistics.median(values), 3) for name, values in seconds.items()},
    }


def join(folder: Path) -> dict[str, float]:
    """Keys, blocks and rows into batches, per sample, from a store opened anew each round; beside rendering a view."""
    shards = photos.shards(folder / "join", 1000, 1000)
    cache_path = store(folder, shards, 1000, k=10, seeds=4)
    entry = shards.index.shardlist[0]
    sample = next(sample_reader.verified_samples(entry, shards.path(entry)))
    joined, rendered = [], []
    for _ in range(ROUNDS):
        cache = store_reader.open(cache_path)
        took = 0.0
        for aug_seed in range(4):
            began = time.perf_counter()
            cache.keys(0)
            rows = cache.block(0, aug_seed, lse=False).arrays()
            took += time.perf_counter() - began
            # A sample has an item with or without a teacher.
            items = [lane_reader.JoinedView("", 0, rows, row) for row in range(1000)]
            began = time.perf_counter()
            for start in range(0, len(items), 32):
                loader.stack_rows(items[start : start + 32])
            took += time.perf_counter() - began
        joined.append(took / 4000)
        began = time.perf_counter()
        for aug_seed in range(20):
            mixing.render_mixed(
                cache.recipe.policy,
                [decode.rgb_pixels(sample.image, "bench")],
                [sample.key],
                aug_seed,
                cache.recipe.teacher.size,
            )[0]
        rendered.append((time.perf_counter() - began) / 20)
    ratio = statistics.median(join_s / render_s for join_s, render_s in zip(joined, rendered, strict=True))
    return {"join_us_a_sample": 1e6 * statistics.median(joined), "join_to_render": ratio}


def main() -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        result = {**steps(Path(first)), **join(Path(second))}
    print(f"step from cache / step without distillation = {result['step_ratio']} (target 1.05)")
    print(
        f"step with a live teacher / step from cache = {result['gain']}, {result['gain_of_ideal']} of (student + "
        "teacher) / student (target 0.95)"
    )
    print(f"join = {result['join_us_a_sample']:.1f} µs a sample (target 8)")
    print(f"join / decoding and rendering the view = {result['join_to_render']:.4f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
