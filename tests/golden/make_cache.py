"""The golden caches: a store of each format and renderer, which every later release must read.

    python tests/golden/make_cache.py    writes the one of a new format or renderer

Never rewrite one. The rows are those of `logits`, which is integers alone.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from teachonce.cache import store_writer, unit_plan
from teachonce.core import hashing
from teachonce.format import basis, codec, fidelity_measurement, row_expansion, schema
from teachonce.views import view_policy

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")
KEYS = (("n01/a", "n01/b", "n02/é"), ("n03/x", "n03/y"))
STORES = {
    "cache_v1": (1, 0),
    "cache_v2": (2, 0),
    "cache_v3": (3, 0),
    "cache_v3_renderer_1": (3, 1),
    "cache_v3_renderer_2": (3, 2),
}
"""Format and renderer of each, by the name of its folder."""
AUG_SEEDS, SEEDS_PER_UNIT, K, SIZE = 4, 2, 3, 8


def logits(tar: int, aug_seed: int) -> npt.NDArray[np.float32]:
    """float32 (rows, classes): eighths, all different within a row."""
    rows, classes = np.mgrid[: len(KEYS[tar]), : len(CLASSES)]
    return (((classes * 5 + rows * 3 + tar + aug_seed * 7) % 8) * 1.375 - 4 + classes / 8).astype(np.float32)


def pixels(tar: int) -> npt.NDArray[np.uint8]:
    """uint8 (3, size, size): the tar's canary."""
    return (np.arange(3 * SIZE * SIZE).reshape(3, SIZE, SIZE) * 7 + tar).astype(np.uint8)


def basis_of() -> basis.Basis:
    """Two components of halves, which are orthonormal under equal scales."""
    components = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [1, -1, 1, -1, 0, 0, 0, 0]], np.float32) / 2
    return basis.Basis(np.arange(-8, 0, dtype=np.float32), np.ones(8, np.float32), components)


def recipe(version: int, renderer: int = 0) -> schema.Recipe:
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
    mixed = {"mix": view_policy.MixupCutmix(mixup_alpha=0.5), "repeats": 2} if version == 3 else {}
    views = view_policy.Policy(
        crop=view_policy.RandomResizedCrop(),
        flip=0.5,
        rand_augment=view_policy.RandAugment(),
        renderer=renderer,
        **mixed,
    )
    coded = schema.TransformTail(rank=2, step=0.5, basis_sha256=basis_of().sha256(0.5))
    tails: dict[int, Literal["flat"] | schema.TransformTail] = {1: "flat", 2: coded, 3: "flat"}
    return schema.Recipe(teacher=teacher, policy=views, k=K, tail=tails[version])


def make(folder: Path, version: int, renderer: int) -> None:
    """Write the store, its units beside it for a moment."""
    tars = [
        schema.Tar(url=f"{tar}.tar", nsamples=len(keys), sha256=f"{tar}" * 64, keys_crc32=hashing.keys_crc32(keys))
        for tar, keys in enumerate(KEYS)
    ]
    extent = schema.Extent(tars=tuple(tars), aug_seeds=AUG_SEEDS, seeds_per_unit=SEEDS_PER_UNIT, rows_per_tar=4)
    tail = codec.TailCoding(basis_of(), 0.5) if version == 2 else None
    rows_recipe = recipe(version, renderer)
    sketch = row_expansion.tail_decoder(rows_recipe, basis_of())
    units = []
    for item in unit_plan.enumerate_units(len(KEYS), AUG_SEEDS, SEEDS_PER_UNIT):
        rows = [codec.pack(logits(item.tar, seed), K, tail) for seed in item.aug_seeds]
        unit = schema.UnitRecord(
            tar=item.tar,
            group=item.group,
            correct=1,
            views=len(KEYS[item.tar]) * SEEDS_PER_UNIT,
            canary=schema.Canary(
                row=item.tar, aug_seed=item.aug_seeds[0], sha256=hashing.sha256(pixels(item.tar).tobytes())
            ),
            objects={},
            fidelity=fidelity_measurement.measure_rows(logits(item.tar, item.aug_seeds[0]), rows[0], sketch),
            versions={"python": "3.11"},
            device="cpu, 1 threads",
        )
        place = folder.with_name(f"{folder.name}.unit-{item.tar}-{item.group}")
        record = store_writer.write_unit(
            place, rows_recipe, extent, store_writer.UnitRows(rows, KEYS[item.tar], pixels(item.tar)), unit
        )
        units.append((place, record))
    store_writer.assemble(folder, rows_recipe, extent, units, tail.basis if tail else None)
    for place, _ in units:
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        place.rmdir()


if __name__ == "__main__":
    for name, (number, renderer) in STORES.items():
        place = Path(__file__).parent / name
        if place.exists():
            print(f"{place.name} is kept")
        else:
            make(place, number, renderer)
