"""Small stores of logits that are hashes of key and aug seed, so that no teacher is needed."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from teachonce.cache import store_writer, unit_plan
from teachonce.core import files, hashing, run_record
from teachonce.format import basis, codec, fidelity_measurement, layout, row_expansion, schema
from teachonce.prepare import tar_writer
from teachonce.shards import decode, index, sample_reader
from teachonce.store import compatibility, store_reader
from teachonce.views import mixing, view_policy

CLASSES = tuple("abcdefghijkl")
SIZE = 16
POLICY = view_policy.Policy(
    crop=view_policy.RandomResizedCrop(), flip=0.5, erase=view_policy.RandomErasing(probability=0.5)
)


def image(seed: int, size: int = 20) -> bytes:
    """A PNG of noise."""
    raw = np.random.Philox(key=seed).random_raw(size * size * 3 // 8 + 1).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(np.frombuffer(raw, np.uint8)[: size * size * 3].reshape(size, size, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def logits_of(key: str, aug_seed: int, classes: int) -> npt.NDArray[np.float32]:
    """What the stand-in of a teacher says of a view: a hash."""
    bits = np.random.Philox(key=hashing.seed64(key, aug_seed)).random_raw(classes)
    return ((bits >> np.uint64(40)).astype(np.float32) / 2**24 * 16 - 8).astype(np.float32)


def recipe_of(k: int | str, classes: tuple[str, ...] = CLASSES) -> schema.Recipe:
    return schema.Recipe(
        teacher=schema.Teacher(
            architecture="hash",
            arguments={},
            weights_sha256="0" * 64,
            size=SIZE,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            precision="float32",
            num_classes=len(classes),
            classes_sha256=schema.classes_sha256(classes),
        ),
        policy=POLICY,
        k=k,
        tail="none" if k == "all" else "flat",
    )


@dataclass(frozen=True, slots=True)
class HashedStore:
    """A store, its shards and what went into it."""

    path: Path
    shards: index.Shards
    recipe: schema.Recipe
    extent: schema.Extent

    def open(self) -> store_reader.Cache:
        return store_reader.open(self.path)

    def keys(self, tar: int) -> list[str]:
        entry = self.shards.index.of_split("train")[tar]
        return [sample.key for sample in sample_reader.verified_samples(entry, self.shards.path(entry))]

    def logits(self, tar: int, aug_seed: int) -> npt.NDArray[np.float32]:
        return np.stack([logits_of(key, aug_seed, self.recipe.teacher.num_classes) for key in self.keys(tar)])

    def edit(self, name: str, change: Callable[[object], object]) -> None:
        """Write a changed JSON file of the store."""
        path = self.path / name
        files.write_json(path, change(json.loads(path.read_text())))

    def object(self, name: str, tar: int, group: int = 0) -> Path:
        spec = layout.array_specs(self.recipe, self.extent.rows_per_tar)[name]
        return self.path / layout.object_path(name, spec, tar, group)


def write_shards(folder: Path, rows: int = 16, rows_per_tar: int = 6) -> index.Shards:
    folder.mkdir(parents=True)
    samples = [tar_writer.EncodedImage(f"pic-{row:04d}", "png", image(row), row % len(CLASSES)) for row in range(rows)]
    entries = list(tar_writer.write_samples(samples, folder, split="train", rows_per_tar=rows_per_tar))
    index.write(folder, base=folder, classes=CLASSES, rows_per_tar=rows_per_tar, shardlist=entries)
    return index.read(folder)


def write_store(
    path: Path,
    shards: index.Shards,
    recipe: schema.Recipe,
    *,
    aug_seeds: int,
    seeds_per_unit: int,
    tail: basis.Basis | None = None,
    salt: int = 0,
) -> HashedStore:
    """Write a store of hashed logits, other ones by `salt`, and true canaries."""
    entries = shards.index.of_split("train")
    extent = schema.Extent(
        tars=compatibility.extent_tars(shards, "train"),
        aug_seeds=aug_seeds,
        seeds_per_unit=seeds_per_unit,
        rows_per_tar=shards.index.rows_per_tar,
    )
    coded, sketch = (
        (codec.TailCoding(tail, recipe.tail.step), row_expansion.tail_decoder(recipe, tail)) if tail else (None, None)
    )
    units = []
    for item in unit_plan.enumerate_units(len(entries), aug_seeds, seeds_per_unit):
        samples = list(sample_reader.verified_samples(entries[item.tar], shards.path(entries[item.tar])))
        logits = [
            np.stack([logits_of(s.key, seed + salt, recipe.teacher.num_classes) for s in samples])
            for seed in item.aug_seeds
        ]
        rows = [codec.pack(part, recipe.k, coded) for part in logits]
        row, seed = item.tar % len(samples), item.aug_seeds[-1]
        picture = decode.rgb_pixels(samples[row].image, "x")
        pixels = mixing.render_mixed(recipe.policy, [picture], [samples[row].key], seed, recipe.teacher.size)[0]
        unit = schema.UnitRecord(
            tar=item.tar,
            group=item.group,
            correct=0,
            views=len(samples) * len(item.aug_seeds),
            canary=schema.Canary(row=row, aug_seed=seed, sha256=compatibility.pixels_sha256(pixels)),
            objects={},
            fidelity=fidelity_measurement.measure_rows(logits[0], rows[0], sketch),
            versions=run_record.library_versions(),
            device="cpu",
            tar_sha256=entries[item.tar].sha256,
        )
        folder = path.parent / "units" / f"{path.name}-{item.tar}-{item.group}"
        answers = store_writer.UnitRows(rows, [sample.key for sample in samples], pixels)
        units.append((folder, store_writer.write_unit(folder, recipe, extent, answers, unit)))
    store_writer.assemble(path, recipe, extent, units, tail)
    return HashedStore(path, shards, recipe, extent)


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> index.Shards:
    """Three tars of 6, 6 and 4 rows."""
    return write_shards(tmp_path_factory.mktemp("shards") / "shards")


@pytest.fixture(scope="session")
def store_of(tmp_path_factory, shards):
    """Stores by k, each of 4 aug seeds in units of 2; not to be changed."""
    stores: dict[object, HashedStore] = {}

    def of(k: int | str) -> HashedStore:
        if k not in stores:
            folder = tmp_path_factory.mktemp("store")
            stores[k] = write_store(folder / "train.zarr", shards, recipe_of(k), aug_seeds=4, seeds_per_unit=2)
        return stores[k]

    return of


@pytest.fixture
def damaged(store_of, tmp_path) -> HashedStore:
    """A store of k = 3 of one's own, to be damaged."""
    source = store_of(3)
    shutil.copytree(source.path, tmp_path / "train.zarr")
    for path in (tmp_path / "train.zarr").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return HashedStore(tmp_path / "train.zarr", source.shards, source.recipe, source.extent)


@pytest.fixture
def write_shards_at():
    return write_shards


@pytest.fixture
def write_store_at():
    return write_store


@pytest.fixture(scope="session")
def recipe():
    return recipe_of
