"""The arrays of a store, each of exactly the form its writer gave it."""

from pathlib import Path

import zarr
import zarr.storage
from zarr.core.metadata import ArrayV3Metadata

from pipeline.base import errors
from pipeline.cache import layout, schema

RESTORE = "Fetch it again: dvc checkout, or dvc pull; or make it again: dvc repro cache"

Array = zarr.Array[ArrayV3Metadata]


def arrays(
    path: Path, group: zarr.Group, specs: dict[str, layout.ArraySpec], extent: schema.Extent
) -> dict[str, Array]:
    """Open the arrays. No sha256 covers an array's zarr.json: its form is compared instead.

    Raises:
        CacheError: one is missing, unreadable or of another form.
    """
    blank = zarr.create_group(zarr.storage.MemoryStore())
    for name, spec in specs.items():
        layout.create(
            blank, name, spec,
            tars=len(extent.tars), aug_seeds=extent.aug_seeds, seeds_per_unit=extent.seeds_per_unit,
        )  # fmt: skip
    return {name: _array(path, group, name, layout.form(_get(path, blank, name))) for name in specs}


def _array(path: Path, group: zarr.Group, name: str, form: dict[str, object]) -> Array:
    array = _get(path, group, name)
    found = layout.form(array)
    for key, expected in form.items():
        if found[key] != expected:
            raise errors.CacheError(errors.refusal(path / name / "zarr.json", key, expected, found[key], RESTORE))
    return array


def _get(path: Path, group: zarr.Group, name: str) -> Array:
    try:
        array = group.get(name)
    except Exception as error:  # damaged metadata makes zarr fail in any way
        raise errors.CacheError(f"{path / name / 'zarr.json'}: cannot be read ({line(error)}). {RESTORE}") from error
    if not isinstance(array, zarr.Array):
        raise errors.CacheError(f"{path}: array {name} is missing. {RESTORE}")
    return array


def line(error: Exception) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
