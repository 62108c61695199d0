"""Arrays as Zarr writes them, by its own defaults: neither a user's environment nor their configuration decides a byte.

Who only reads a store needs no Zarr (`store.object_decoder`).
"""

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import StoreLike

from teachonce.format import layout

Array = zarr.Array[ArrayV3Metadata]

# Away with ZARR_DEFAULT_ZARR_FORMAT, another pipeline of codecs or another order of axes, from wherever it comes: two
# users with one recipe would make two stores. Once for the process, as Zarr's settings belong to all its threads.
zarr.config.refresh(paths=[], env={})


def create_group(store: StoreLike, attributes: dict[str, object] | None = None) -> zarr.Group:
    """Create a group: a store's, or a unit's."""
    return zarr.create_group(store, zarr_format=3, attributes=attributes)


def create_array(
    group: zarr.Group, name: str, spec: layout.ArraySpec, *, tars: int, aug_seeds: int, seeds_per_unit: int
) -> Array:
    """Create one array in a group. A chunk is one (tar, aug seed) block, an object one unit.

    Args:
        group: a store's, or a unit's.
        name: of the array.
        spec: its dtype, shape and fill value.
        tars: length of the first axis.
        aug_seeds: length of the second axis, where the array has it.
        seeds_per_unit: aug seeds of an object.
    """
    return group.create_array(
        name,
        shape=layout.array_shape(spec, tars=tars, aug_seeds=aug_seeds),
        chunks=layout.array_shape(spec, tars=1, aug_seeds=1),
        shards=layout.array_shape(spec, tars=1, aug_seeds=seeds_per_unit) if spec.per == "unit" else None,
        dtype=str if spec.dtype == "str" else np.dtype(spec.dtype),
        fill_value=spec.fill,
        # Blosc alone returns wrong data for a flipped bit; crc32c around what it packed refuses every one.
        compressors=[BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
        # The canary of a black view is all fill values, and an object all the same.
        config={"write_empty_chunks": True},
    )
