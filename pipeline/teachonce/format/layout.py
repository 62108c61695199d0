"""The arrays of a store: names, shapes, chunks and codecs. FORMAT.md says the same in words."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from teachonce.core import errors
from teachonce.format import schema
from teachonce.shards import index

MAX_CHUNK_BYTES = 1 << 30
"""Most bytes of a block of an array, unpacked: what a reader allocates at a time."""
MAX_OBJECT_BYTES = 1 << 32
"""Most bytes of all blocks of an object, unpacked."""
BLOSC_HEADER = 16  # bytes: a chunk that cannot be compressed is stored as it is behind such a header


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array, in units of (tar, aug seed, row, …)."""

    dtype: str
    """Name of the dtype in NumPy, or `str`."""
    inner: tuple[int, ...]
    """Shape of a block: of all rows of a tar under one aug seed, or of what the tar or the store has once."""
    fill: int | float | str
    """What an unwritten place reads as: no valid value, so that a hole is seen."""
    per: Literal["unit", "tar", "store"]
    """Leading axes: (tar, aug seed), one object a unit; (tar,), one a tar, with group 0; or none, one a store."""
    rows_last: bool = False
    """True where rows are the last axis, so that a compressor sees each component of all rows together."""

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one row, without the axis of rows."""
        return self.inner[:-1] if self.rows_last else self.inner[1:]


def array_specs(recipe: schema.Recipe, rows_per_tar: int) -> dict[str, ArraySpec]:
    """The arrays of a store by name."""
    size, classes = recipe.teacher.size, recipe.teacher.num_classes
    common = {
        "key": ArraySpec("str", (rows_per_tar,), "", "tar"),
        "canary": ArraySpec("uint8", (3, size, size), 0, "tar"),
    }
    if recipe.k == "all":
        return {**common, "logits": ArraySpec("float32", (rows_per_tar, classes), float("nan"), "unit")}
    class_dtype = schema.class_dtype(classes)
    return {
        **common,
        "class_id": ArraySpec(class_dtype, (rows_per_tar, recipe.k), schema.FILL_CLASS[class_dtype], "unit"),
        "logp": ArraySpec("float16", (rows_per_tar, recipe.k), float("nan"), "unit"),
        "lse": ArraySpec("float32", (rows_per_tar,), float("nan"), "unit"),
        **_tail_specs(recipe.tail, classes, rows_per_tar),
    }


def _tail_specs(tail: object, classes: int, rows_per_tar: int) -> dict[str, ArraySpec]:
    if not isinstance(tail, schema.TransformTail):
        return {}
    nan = float("nan")
    return {
        # Rows last: a component's coefficients are alike over the rows, and compress better side by side. 255 is no
        # folded coefficient, the greatest of which is 254.
        "tail": ArraySpec("uint8", (tail.rank, rows_per_tar), 255, "unit", rows_last=True),
        "tail_mean": ArraySpec("float32", (classes,), nan, "store"),
        "tail_scale": ArraySpec("float32", (classes,), nan, "store"),
        "tail_components": ArraySpec("float32", (tail.rank, classes), nan, "store"),
    }


def array_metadata(spec: ArraySpec, *, tars: int, aug_seeds: int, seeds_per_unit: int) -> dict[str, object]:
    """What a store's metadata of an array says of how its objects are read, as plain JSON.

    Blosc keeps its parameters in the data: here they do not count.

    Args:
        spec: the array.
        tars: length of the first axis.
        aug_seeds: length of the second axis.
        seeds_per_unit: aug seeds of an object.
    """
    block = list(array_shape(spec, tars=1, aug_seeds=1))
    codecs: list[object] = [_bytes_codec(spec), {"name": "blosc"}, {"name": "crc32c"}]
    if spec.per == "unit":
        index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        inner = {"chunk_shape": block, "codecs": codecs, "index_codecs": index_codecs, "index_location": "end"}
        # Many blocks in one file: an epoch reads one seed of each tar, and a store stays at a few thousand files.
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    return {
        "shape": list(array_shape(spec, tars=tars, aug_seeds=aug_seeds)),
        "data_type": "string" if spec.dtype == "str" else spec.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": list(array_shape(spec, tars=1, aug_seeds=seeds_per_unit))},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": json_fill_value(spec.fill),
        "codecs": codecs,
        "storage_transformers": [],
    }


def json_fill_value(value: object) -> object:
    """A fill value in JSON, which has no NaN."""
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def _bytes_codec(spec: ArraySpec) -> dict[str, object]:
    """The codec that makes bytes of an array, before they are compressed."""
    if spec.dtype == "str":
        return {"name": "vlen-utf8"}
    return {"name": "bytes"} | ({"configuration": {"endian": "little"}} if np.dtype(spec.dtype).itemsize > 1 else {})


def max_unpacked_bytes(spec: ArraySpec) -> int:
    """The most bytes that a block unpacks to."""
    if spec.dtype == "str":
        return min(MAX_CHUNK_BYTES, 4 + spec.inner[0] * (4 + index.MAX_KEY_BYTES))
    return math.prod(spec.inner) * np.dtype(spec.dtype).itemsize


def max_object_bytes(spec: ArraySpec, seeds_per_unit: int) -> int:
    """The most bytes that an object may take on disk: incompressible blocks, each with its crc32c, and their index."""
    if spec.per != "unit":
        return max_unpacked_bytes(spec) + BLOSC_HEADER + 4
    # Of each block its header, crc32c (4) and place in the index (16); the index has a crc32c of its own.
    return seeds_per_unit * (max_unpacked_bytes(spec) + BLOSC_HEADER + 4 + 16) + 4


def require_bounded(specs: dict[str, ArraySpec], seeds_per_unit: int, where: object) -> None:
    """Refuse arrays whose blocks or objects are too large to be held in memory.

    Args:
        specs: the arrays of a store by name.
        seeds_per_unit: aug seeds of an object.
        where: origin of the settings, for the message.

    Raises:
        ConfigError: names the array, its shape and its bytes.
    """
    for name, spec in specs.items():
        seeds = seeds_per_unit if spec.per == "unit" else 1
        for part, count, limit in (("a block", 1, MAX_CHUNK_BYTES), ("an object", seeds, MAX_OBJECT_BYTES)):
            size = count * max_unpacked_bytes(spec)
            if size > limit:
                value = f"{size:,}: {' × '.join(map(str, (count, *spec.inner)))} of {spec.dtype}"
                cure = "Use fewer rows_per_tar, seeds_per_unit or k"
                raise errors.ConfigError.for_value(
                    where, f"bytes of {part} of {name}", f"at most {limit:,}", value, cure
                )


def bytes_per_view(recipe: schema.Recipe) -> int:
    """Bytes of a row before compression."""
    specs = array_specs(recipe, 1).values()
    return sum(math.prod(spec.row) * np.dtype(spec.dtype).itemsize for spec in specs if spec.per == "unit")


def array_shape(spec: ArraySpec, *, tars: int, aug_seeds: int) -> tuple[int, ...]:
    """Shape of an array in a store of this many tars and seeds.

    Args:
        spec: the array.
        tars: length of the first axis.
        aug_seeds: length of the second axis, where the array has it.
    """
    return (*{"unit": (tars, aug_seeds), "tar": (tars,), "store": ()}[spec.per], *spec.inner)


def object_path(name: str, spec: ArraySpec, tar: int, group: int) -> str:
    """Path of an array's object for a unit within a store: Zarr's default chunk key encoding.

    Args:
        name: of the array.
        spec: the array.
        tar: position of the unit's tar.
        group: its group of aug seeds.
    """
    coordinates = {"unit": (tar, group), "tar": (tar,), "store": ()}[spec.per]
    return "/".join([name, "c", *map(str, coordinates), *("0" for _ in spec.inner)])


def unit_specs(specs: dict[str, ArraySpec], group: int) -> dict[str, ArraySpec]:
    """The arrays that a unit of this seed group writes: those by tar are written once, with group 0."""
    # Keys and canary pixels are of the tar: written once, so that more seeds write none of them again.
    return {name: spec for name, spec in specs.items() if spec.per == "unit" or (spec.per == "tar" and group == 0)}
