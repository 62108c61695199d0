"""The metadata of a store: its attributes, and its arrays, each of exactly the form its writer gave it."""

import zarr
import zarr.storage
from zarr.core.metadata import ArrayV3Metadata

from pipeline.base import errors, files, places
from pipeline.cache import layout, schema

RESTORE = "Fetch it again: dvc checkout, or dvc pull; or make it again: dvc repro cache"
METADATA = "zarr.json"
MAX_GROUP_BYTES = 1 << 26
"""Of the group's zarr.json, which lists the tars: 200,000 of them."""
MAX_ARRAY_BYTES = 1 << 16
"""Of an array's zarr.json."""


def attributes(folder: places.Folder) -> object:
    """The attribute of a store's group, not yet validated; None where there is none.

    Raises:
        CacheError: there is no group.
    """
    data = document(folder, METADATA, MAX_GROUP_BYTES)
    if not isinstance(data, dict) or (data.get("zarr_format"), data.get("node_type")) != (3, "group"):
        raise errors.CacheError(f"{folder}: is not a whole cache ({METADATA} is of no Zarr v3 group). {RESTORE}")
    found = data.get("attributes")
    return found.get(schema.ATTRIBUTE) if isinstance(found, dict) else None


def document(folder: places.Folder, name: str, most_bytes: int) -> object:
    """A JSON file of a store.

    Raises:
        CacheError: it is missing, no regular file, larger than it may be, or no JSON.
    """
    # A link to a device would be read without end.
    if not folder.holds(name):
        raise errors.CacheError(f"{folder}: is not a whole cache ({name} is missing). {RESTORE}")
    path = folder.file(name, most_bytes=most_bytes)
    try:
        return files.read_json(path, most_bytes)
    except (OSError, ValueError) as error:
        raise errors.CacheError(f"{path}: cannot be read ({line(error)}). {RESTORE}") from error


def require(folder: places.Folder, specs: dict[str, layout.ArraySpec], extent: schema.Extent) -> None:
    """Compare the arrays' metadata with what a writer makes of the attributes: no sha256 covers it.

    Raises:
        CacheError: an array's is missing, unreadable or of another form.
    """
    blank = zarr.create_group(zarr.storage.MemoryStore())
    for name, spec in specs.items():
        made = layout.create(
            blank, name, spec,
            tars=len(extent.tars), aug_seeds=extent.aug_seeds, seeds_per_unit=extent.seeds_per_unit,
        )  # fmt: skip
        found = layout.form(_metadata(folder, name))
        for key, expected in layout.form(made.metadata).items():
            if found[key] != expected:
                raise errors.CacheError(
                    errors.refusal(folder.path / name / METADATA, key, expected, found[key], RESTORE)
                )


def _metadata(folder: places.Folder, name: str) -> ArrayV3Metadata:
    data = document(folder, f"{name}/{METADATA}", MAX_ARRAY_BYTES)
    try:
        return ArrayV3Metadata.from_dict(data)  # type: ignore[arg-type]
    except Exception as error:  # damaged metadata makes zarr fail in any way
        where = folder.path / name / METADATA
        raise errors.CacheError(f"{where}: cannot be read ({line(error)}). {RESTORE}") from error


def line(error: Exception) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
