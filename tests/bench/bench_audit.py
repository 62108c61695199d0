"""The audit without a teacher against plain sha256 of the same bytes, canaries' decoding and rendering left out.

    python tests/bench/bench_audit.py

Target: at least 200 MB/s a core (photographs of about 30 kB, top-10 rows of 1,000 classes, two seed groups of eight).
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import bench_join
import numpy as np
import photos

from teachonce.audit import audit_cache, store_audit
from teachonce.cache import store_writer, unit_plan
from teachonce.core import hashing, run_record
from teachonce.format import codec, fidelity_measurement, schema
from teachonce.shards import decode, sample_reader
from teachonce.store import compatibility, store_reader
from teachonce.views import mixing

IMAGES, ROWS_PER_TAR, SEEDS, GROUP, ROUNDS = 2000, 500, 16, 8, 5


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = photos.shards(folder / "shards", IMAGES, ROWS_PER_TAR)
        pictures = make(folder, shards)
        paths = [path for part in ("cache", "shards") for path in (folder / part).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in paths)
        store = sum(path.stat().st_size for path in paths if "cache" in path.parts)
        rounds = [measure(folder, paths, pictures) for _ in range(ROUNDS)]
        rows = store_alone(folder / "alone")
    audit_s, wall_s, plain_s = (statistics.median(values) for values in zip(*rounds, strict=True))
    ratio = statistics.median(audit / plain for audit, _, plain in rounds)
    result = {
        "MB": round(size / 1e6, 1),
        "store_MB": round(store / 1e6, 1),
        "audit_MB_a_cpu_s": round(size / 1e6 / audit_s),
        "audit_MB_a_wall_s": round(size / 1e6 / wall_s),
        "sha256_MB_a_cpu_s": round(size / 1e6 / plain_s),
        "ratio": round(ratio, 2),
        "store_of_k_100_MB_a_cpu_s": round(rows),
    }
    print(f"audit {result['audit_MB_a_cpu_s']} MB per CPU second (target 200) = {ratio:.2f} × sha256 alone")
    print(json.dumps(result))


def store_alone(folder: Path) -> float:
    """MB of a store per CPU second, objects and rows without any tar: top-100 rows."""
    folder.mkdir()
    path = bench_join.store(folder, bench_join.made_up_keys())
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    def audit_rows() -> None:
        cache = store_reader.open(path)
        assert not [wrong for tar in range(bench_join.TARS) for wrong in store_audit.check_tar(cache, tar)]

    return size / 1e6 / statistics.median(seconds(audit_rows)[0] for _ in range(ROUNDS))


def measure(folder: Path, paths: list[Path], pictures: list) -> tuple[float, float, float]:
    """CPU seconds and wall seconds of the audit without its rendering, CPU seconds of sha256 alone."""
    plain_s, _ = seconds(lambda: [hashing.sha256_file(path) for path in paths])
    canaries_s, canaries_wall_s = seconds(lambda: [replay(*picture) for picture in pictures])
    audit_s, wall_s = seconds(lambda: audit(folder))
    return audit_s - canaries_s, wall_s - canaries_wall_s, plain_s


def audit(folder: Path) -> None:
    result = audit_cache.audit(
        audit_cache.AuditPaths(folder / "cache", folder / "shards"), out=folder / "out", rows=1, seed=0
    )
    assert not result.findings, result.findings[0]


def replay(recipe: schema.Recipe, data: bytes, key: str, aug_seed: int) -> None:
    mixing.render_mixed(recipe.policy, [decode.rgb_pixels(data, key)], [key], aug_seed, recipe.teacher.size)[0]


def make(folder: Path, shards) -> list[tuple[schema.Recipe, bytes, str, int]]:
    """A store of random rows with true canaries; what the canaries are rendered from."""
    recipe = schema.Recipe(
        teacher=photos.identity(224),
        policy=photos.views().policy,
        k=10,
        tail="flat",
    )
    entries = shards.index.of_split("train")
    extent = schema.Extent(
        tars=compatibility.extent_tars(shards, "train"),
        aug_seeds=SEEDS,
        seeds_per_unit=GROUP,
        rows_per_tar=ROWS_PER_TAR,
    )
    units, pictures = [], []
    for item in unit_plan.enumerate_units(len(entries), SEEDS, GROUP):
        samples = list(sample_reader.verified_samples(entries[item.tar], shards.path(entries[item.tar])))
        bits = np.random.Philox(key=hashing.seed64("bench", item.tar, item.group)).random_raw(
            GROUP * len(samples) * 1000
        )
        # A confident teacher: a few classes far above the rest.
        logits = ((bits >> np.uint64(40)).astype(np.float32) / 2**24) ** 8 * 12
        rows = [codec.pack(part, 10) for part in logits.reshape(GROUP, len(samples), 1000)]
        first, seed = samples[0], item.aug_seeds[0]
        pictures.append((recipe, first.image, first.key, seed))
        pixels = mixing.render_mixed(
            recipe.policy, [decode.rgb_pixels(first.image, first.key)], [first.key], seed, recipe.teacher.size
        )[0]
        unit = schema.UnitRecord(
            tar=item.tar,
            group=item.group,
            correct=0,
            views=len(samples) * GROUP,
            canary=schema.Canary(row=0, aug_seed=seed, sha256=compatibility.pixels_sha256(pixels)),
            objects={},
            fidelity=fidelity_measurement.measure_rows(logits.reshape(-1, 1000)[: len(samples)], rows[0]),
            versions=run_record.library_versions(),
            device="cpu",
        )
        answers = store_writer.UnitRows(rows, [sample.key for sample in samples], pixels)
        place = folder / "units" / f"{item.tar}-{item.group}"
        units.append((place, store_writer.write_unit(place, recipe, extent, answers, unit)))
    store_writer.assemble(folder / "cache" / "train.zarr", recipe, extent, units)
    store_reader.open(folder / "cache" / "train.zarr")
    return pictures


def seconds(work) -> tuple[float, float]:
    """Of the processor, which is what a core gives; and by the clock, which other processes slow down."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()
