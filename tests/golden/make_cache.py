"""The golden cache: a store of format version 1 that every later release must read.

    python tests/golden/make_cache.py FOLDER    write the store into FOLDER, for instance tests/golden/cache_v1

Never rewrite cache_v1: a new format gets a folder of its own. The rows are those of `logits`, which is integers alone.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.base import hashing
from pipeline.cache import codec, fidelity, plan, schema, write
from pipeline.views import policy

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")
KEYS = (("n01/a", "n01/b", "n02/é"), ("n03/x", "n03/y"))
AUG_SEEDS, SEEDS_PER_UNIT, K, SIZE = 4, 2, 3, 8


def logits(tar: int, aug_seed: int) -> npt.NDArray[np.float32]:
    """float32 (rows, classes): eighths, all different within a row."""
    rows, classes = np.mgrid[: len(KEYS[tar]), : len(CLASSES)]
    return (((classes * 5 + rows * 3 + tar + aug_seed * 7) % 8) * 1.375 - 4 + classes / 8).astype(np.float32)


def pixels(tar: int) -> npt.NDArray[np.uint8]:
    """uint8 (3, size, size): the tar's canary."""
    return (np.arange(3 * SIZE * SIZE).reshape(3, SIZE, SIZE) * 7 + tar).astype(np.uint8)


def recipe() -> schema.Recipe:
    teacher = schema.Teacher(
        architecture="golden",
        arguments={"depth": 2},
        weights_sha256="1" * 64,
        size=SIZE,
        mean=(0.5, 0.25, 0.125),
        std=(0.5, 0.5, 1.0),
        precision="float32",
        num_classes=len(CLASSES),
        classes_sha256=schema.classes_sha256(CLASSES),
    )
    views = policy.Policy(crop=policy.RandomResizedCrop(), flip=0.5, rand_augment=policy.RandAugment())
    return schema.Recipe(teacher=teacher, policy=views, k=K, tail="flat")


def make(folder: Path) -> None:
    """Write the store, its units beside it for a moment."""
    tars = [
        schema.Tar(url=f"{tar}.tar", nsamples=len(keys), sha256=f"{tar}" * 64, keys_crc32=hashing.keys_crc32(keys))
        for tar, keys in enumerate(KEYS)
    ]
    extent = schema.Extent(tars=tuple(tars), aug_seeds=AUG_SEEDS, seeds_per_unit=SEEDS_PER_UNIT, rows_per_tar=4)
    units = []
    for item in plan.units(len(KEYS), AUG_SEEDS, SEEDS_PER_UNIT):
        rows = [codec.pack(logits(item.tar, seed), K) for seed in item.aug_seeds]
        unit = schema.Unit(
            tar=item.tar,
            group=item.group,
            correct=1,
            views=len(KEYS[item.tar]) * SEEDS_PER_UNIT,
            canary=schema.Canary(
                row=item.tar, aug_seed=item.aug_seeds[0], sha256=hashing.sha256(pixels(item.tar).tobytes())
            ),
            objects={},
            fidelity=fidelity.measure(logits(item.tar, item.aug_seeds[0]), rows[0]),
            versions={"python": "3.11"},
            device="cpu, 1 threads",
        )
        place = folder.with_name(f"{folder.name}.unit-{item.tar}-{item.group}")
        made = write.unit(place, recipe(), extent, write.Answers(rows, KEYS[item.tar], pixels(item.tar)), unit)
        units.append((place, made))
    write.store(folder, recipe(), extent, units)
    for place, _ in units:
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        place.rmdir()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
