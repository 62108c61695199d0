"""Rows joined per second from a warm local cache, against a reader that seeks and reads a record a sample.

    python tests/bench/bench_join.py

One core, k = 100 of 1,000 classes, tars of 1,000 rows, eight aug seeds a unit. A join starts from the keys of a tar as
they stream by, in an order of its own, and ends in arrays of class ids and log-probabilities in that order.

Targets: 500,000 rows a second where all seeds of a tar are read at once, 200,000 block by block; the better of the two
at least 5 times the reader of records, which is as TinyViT stores its logits: 4 k + 4 bytes a record, found by key in a
dictionary, decoded one by one.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import photos

from teachonce.cache import store_writer
from teachonce.core import hashing
from teachonce.format import codec, schema
from teachonce.store import store_reader

K, ROWS, TARS, SEEDS, ROUNDS = 100, 1000, 4, 8, 9
RECORD = np.dtype([("seed", "<i4"), ("class_id", "<u2", (K,)), ("logp", "<f2", (K,))])

Pair = tuple[np.ndarray, np.ndarray]


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    keys = made_up_keys()
    orders = [hashing.permutation(ROWS, "bench", tar) for tar in range(TARS)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = store(folder, keys)
        cache = store_reader.open(path)
        records, places = dump(folder, cache, keys)
        ways: dict[str, Callable[[], list[Pair]]] = {
            "tar": lambda: by_tar(cache, keys, orders),
            "block": lambda: by_block(cache, keys, orders),
            "record": lambda: by_record(records, places, keys, orders),
        }
        expected = ways["record"]()
        for way in ways.values():
            assert all(map(same, way(), expected))
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                rates[name].append(TARS * SEEDS * ROWS / seconds(way))
    result = {f"{name}_rows_a_s": round(statistics.median(values)) for name, values in rates.items()}
    rounds = zip(*rates.values(), strict=True)
    result["ratio"] = round(statistics.median(max(tar, block) / record for tar, block, record in rounds), 2)
    print(f"all seeds of a tar at once {result['tar_rows_a_s']:,} rows/s (target 500,000)")
    print(f"block by block {result['block_rows_a_s']:,} rows/s (target 200,000)")
    print(f"the better / a reader of records = {result['ratio']} (target 5)")
    print(json.dumps(result))


def made_up_keys() -> list[list[str]]:
    """Keys by tar, of the length of ImageNet's."""
    return [[f"n{tar:08d}/{row:06d}" for row in range(ROWS)] for tar in range(TARS)]


def same(pair: Pair, other: Pair) -> bool:
    return all(map(np.array_equal, pair, other))


def by_tar(cache: store_reader.Cache, keys: list[list[str]], orders: list[np.ndarray]) -> list[Pair]:
    return [
        (rows.class_id_BK[order], rows.logp_BK[order])
        for tar, order in enumerate(orders)
        if require(cache, tar, keys[tar])
        for rows in cache.blocks(tar, 0, lse=False)
    ]


def by_block(cache: store_reader.Cache, keys: list[list[str]], orders: list[np.ndarray]) -> list[Pair]:
    pairs = []
    for tar, order in enumerate(orders):
        for aug_seed in range(SEEDS):
            require(cache, tar, keys[tar])
            rows = cache.block(tar, aug_seed, lse=False)
            pairs.append((rows.class_id_BK[order], rows.logp_BK[order]))
    return pairs


def require(cache: store_reader.Cache, tar: int, keys: list[str]) -> bool:
    """The check of each sample's key, as a lane makes it."""
    assert all(key == other for key, other in zip(keys, cache.keys(tar), strict=True))
    return True


def by_record(path: Path, places: list[dict[str, int]], keys: list[list[str]], orders: list[np.ndarray]) -> list[Pair]:
    pairs = []
    # Unbuffered: a quarter quicker where records lie far apart.
    with path.open("rb", buffering=0) as stream:
        for tar, order in enumerate(orders):
            names = [keys[tar][row] for row in order]
            for aug_seed in range(SEEDS):
                place = places[aug_seed]
                class_id, logp = np.empty((ROWS, K), "<u2"), np.empty((ROWS, K), "<f2")
                for row, key in enumerate(names):
                    stream.seek(place[key])
                    data = stream.read(RECORD.itemsize)
                    class_id[row] = np.frombuffer(data, "<u2", K, 4)
                    logp[row] = np.frombuffer(data, "<f2", K, 4 + 2 * K)
                pairs.append((class_id, logp))
    return pairs


def dump(folder: Path, cache: store_reader.Cache, keys: list[list[str]]) -> tuple[Path, list[dict[str, int]]]:
    """The same rows as records, seed after seed; where each lies, by seed and key."""
    records = np.zeros((SEEDS, TARS, ROWS), RECORD)
    for aug_seed in range(SEEDS):
        for tar in range(TARS):
            rows = cache.block(tar, aug_seed)
            records[aug_seed, tar]["class_id"], records[aug_seed, tar]["logp"] = rows.class_id_BK, rows.logp_BK
    records.tofile(folder / "records")
    flat = [key for part in keys for key in part]
    return folder / "records", [
        {key: (aug_seed * len(flat) + place) * RECORD.itemsize for place, key in enumerate(flat)}
        for aug_seed in range(SEEDS)
    ]


def store(folder: Path, keys: list[list[str]]) -> Path:
    """A cache of made-up logits, spread as a teacher's are."""
    recipe = schema.Recipe(
        teacher=photos.identity(8),
        policy=photos.views().policy,
        k=K,
        tail="flat",
    )
    tars = tuple(
        schema.Tar(url=f"{tar}.tar", nsamples=ROWS, sha256=f"{tar:064d}", keys_crc32=hashing.keys_crc32(part))
        for tar, part in enumerate(keys)
    )
    extent = schema.Extent(tars=tars, aug_seeds=SEEDS, seeds_per_unit=SEEDS, rows_per_tar=ROWS)
    random = np.random.Generator(np.random.Philox(key=0))
    pixels = np.zeros((3, 8, 8), np.uint8)
    canary = schema.Canary(row=0, aug_seed=0, sha256=hashing.sha256(pixels.tobytes()))
    units = []
    for tar, part in enumerate(keys):
        rows = [codec.pack(3 * random.standard_normal((ROWS, 1000), np.float32), K) for _ in range(SEEDS)]
        unit = schema.UnitRecord(
            tar=tar,
            group=0,
            correct=0,
            views=ROWS * SEEDS,
            canary=canary,
            objects={},
            fidelity={},
            versions={},
            device="cpu",
        )
        place = folder / f"unit{tar}"
        units.append(
            (place, store_writer.write_unit(place, recipe, extent, store_writer.UnitRows(rows, part, pixels), unit))
        )
    store_writer.assemble(folder / "train.zarr", recipe, extent, units)
    return folder / "train.zarr"


def seconds(work: Callable[[], object]) -> float:
    # Of the processor: all threads count, other processes do not.
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
