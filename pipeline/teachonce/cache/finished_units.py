"""Finished units, written and read back: nobody vouches for what lies in the scratch folder meanwhile.

A unit is a record that carries its own digest and the name of its folder, and objects whose sha256 the record has.
What is decoded is the very bytes that were hashed, by the form that the layout gives them. What Zarr would say of that
form is not left in the folder: no digest would cover it.
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
        name: that the folder will have.
        specs: of its arrays.
        record: everything but `objects`.

    Returns:
        The record with its objects.
    """
    paths = {each: draft / layout.object_path(each, spec, 0, 0) for each, spec in specs.items()}
    for path in paths.values():
        path.chmod(0o444)
    for path in draft.rglob(store_metadata.METADATA):
        path.unlink()
    objects = {each: hashing.sha256_file(path) for each, path in paths.items()}
    finished = record.model_copy(update={"objects": objects})
    data = finished.model_dump(mode="json", exclude_defaults=True)
    sealed_files.write_with_digest(draft / schema.UNIT, {**data, _FOLDER: name})
    return finished


def read(folder: Path, specs: Mapping[str, layout.ArraySpec], seeds_per_unit: int) -> schema.UnitRecord:
    """The record of a unit, once its objects were compared with it.

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
    for each, spec in specs.items():
        place, most_bytes = folder / layout.object_path(each, spec, 0, 0), layout.max_object_bytes(spec, seeds_per_unit)
        sealed_files.require_sha256(place, record.objects.get(each, ""), "as in its record, ", _REFUSAL, most_bytes)
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
        CacheError: it has changed since the record was read, or is not of that form.
    """
    path = folder / layout.object_path(name, spec, 0, 0)
    data = sealed_files.read_verified(path, record.objects.get(name, ""), "as in its record, ", _CHANGED)
    try:
        return object_decoder.read(io.BytesIO(data), spec, seeds_per_unit, range(seeds_per_unit))
    except (ValueError, RuntimeError) as error:
        raise errors.CacheError(path, f"cannot be decoded ({errors.single_line(error)})", _CHANGED.cure) from error
