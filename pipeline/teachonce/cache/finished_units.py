"""Finished units, written and read back: nobody vouches for what lies in the scratch folder meanwhile.

A unit is a record that carries its own digest and the name of its folder, and objects whose sha256 the record has.
What is decoded is the very bytes that were hashed, with the shapes and codecs that the layout gives them. Zarr's own
metadata of them is not left in the folder: no digest would cover it.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teachonce.core import config, errors, hashing, sealed_files
from teachonce.format import layout, schema
from teachonce.store import object_decoder, store_metadata

_FOLDER = "folder"
"""Key in a record: a unit under the name of another one would pass for it."""
_REFUSAL = sealed_files.Refusal(errors.CacheError, "It is removed, and computed again")
_CHANGED = sealed_files.Refusal(errors.CacheError, "Remove its unit's folder, and run the same command again")


def write_record(
    draft: Path, name: str, specs: Mapping[str, layout.ArraySpec], record: schema.UnitRecord
) -> schema.UnitRecord:
    """Finish a unit whose arrays were written.

    Args:
        draft: its folder so far.
        name: the folder's in the end, which the record repeats.
        specs: of its arrays, by name.
        record: everything but `objects`.

    Returns:
        The record with its objects.
    """
    paths = {array_name: draft / layout.object_path(array_name, spec, 0, 0) for array_name, spec in specs.items()}
    # Objects are hard-linked into stores, and DVC's cache may link those again: a write in place would change all of
    # them at once, in silence. Read-only, it fails.
    for path in paths.values():
        path.chmod(0o444)
    for path in draft.rglob(store_metadata.METADATA):
        path.unlink()
    objects = {array_name: hashing.sha256_file(path) for array_name, path in paths.items()}
    finished = record.model_copy(update={"objects": objects})
    data = finished.model_dump(mode="json", exclude_defaults=True)
    sealed_files.write_with_digest(draft / schema.UNIT, {**data, _FOLDER: name})
    return finished


def read(folder: Path, specs: Mapping[str, layout.ArraySpec], seeds_per_unit: int) -> schema.UnitRecord:
    """The record of a unit, once the sha256 of each of its objects was compared with it; nothing is decoded.

    Args:
        folder: the unit's.
        specs: of its arrays.
        seeds_per_unit: aug seeds of its group.

    Raises:
        CacheError: it is damaged, or another unit.
    """
    path = folder / schema.UNIT
    data = sealed_files.read_with_digest(path, _REFUSAL)
    name = data.pop(_FOLDER, None)
    if name != folder.name:
        raise _REFUSAL.mismatch(path, _FOLDER, folder.name, errors.quote_value(name))
    try:
        record = config.parse(data, schema.UnitRecord, str(path))
    except errors.ConfigError as error:
        raise errors.CacheError.from_error(error, _REFUSAL.cure) from error
    for array_name, spec in specs.items():
        object_path, most_bytes = (
            folder / layout.object_path(array_name, spec, 0, 0),
            layout.max_object_bytes(spec, seeds_per_unit),
        )
        sealed_files.require_sha256(
            object_path, record.objects.get(array_name, ""), "as in its record, ", _REFUSAL, most_bytes
        )
    return record


def read_array(
    folder: Path, name: str, spec: layout.ArraySpec, record: schema.UnitRecord, seeds_per_unit: int
) -> npt.NDArray[np.generic]:
    """An array of a unit, as a block of its store: (seeds, …), or of an array by tar its one block.

    Args:
        folder: the unit's.
        name: the array's.
        spec: of the array.
        record: of the unit.
        seeds_per_unit: aug seeds of its group.

    Raises:
        CacheError: it has changed since the record was read, or is no array of this shape and dtype.
    """
    path = folder / layout.object_path(name, spec, 0, 0)
    # Digest before decoding: Blosc and Zarr's index are C code and offsets, and are to see only bytes that were written
    # here. The shape is the layout's, not one that the file claims.
    data = sealed_files.read_verified(path, record.objects.get(name, ""), "as in its record, ", _CHANGED)
    try:
        return object_decoder.read(io.BytesIO(data), spec, seeds_per_unit, range(seeds_per_unit))
    except (ValueError, RuntimeError) as error:
        raise errors.CacheError(path, f"cannot be decoded ({errors.single_line(error)})", _CHANGED.cure) from error
