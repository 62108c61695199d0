"""The metadata of a store: its attributes, and its arrays, each of exactly the form its writer gave it."""

import reprlib
import struct

import numpy as np

from teachonce.core import errors, files, hashing, storage
from teachonce.format import layout, schema

RESTORE = "Fetch it again: dvc checkout, or dvc pull; or make it again: dvc repro cache"
METADATA = "zarr.json"
MAX_GROUP_BYTES = 1 << 26
"""Most bytes of the group's zarr.json, which lists the tars: 200,000 of them."""
MAX_ARRAY_BYTES = 1 << 16
"""Most bytes of an array's zarr.json."""


def read_group_attributes(folder: storage.Folder) -> object:
    """The attribute of a store's group, not yet validated; None where there is none.

    Raises:
        CacheError: there is no group.
    """
    data = read_document(folder, METADATA, MAX_GROUP_BYTES)
    if not isinstance(data, dict) or (data.get("zarr_format"), data.get("node_type")) != (3, "group"):
        raise errors.CacheError(folder, f"is not a whole cache ({METADATA} is of no Zarr v3 group)", RESTORE)
    attributes = data.get("attributes")
    return attributes.get(schema.ATTRIBUTE) if isinstance(attributes, dict) else None


def read_document(folder: storage.Folder, name: str, most_bytes: int) -> object:
    """A JSON file of a store.

    Args:
        folder: of the store.
        name: of the file, relative to it.
        most_bytes: how many bytes it may have.

    Raises:
        CacheError: it is missing, no regular file, larger than it may be, or no JSON.
    """
    # A link to a device would be read without end.
    if not folder.holds(name):
        raise errors.CacheError(folder, f"is not a whole cache ({name} is missing)", RESTORE)
    path = folder.file(name, most_bytes=most_bytes)
    try:
        return files.read_json(path, most_bytes)
    except (OSError, ValueError) as error:
        raise errors.CacheError(path, f"cannot be read ({errors.single_line(error)})", RESTORE) from error


def require_array_metadata(folder: storage.Folder, specs: dict[str, layout.ArraySpec], extent: schema.Extent) -> None:
    """Compare the arrays' metadata with what a writer makes of the attributes: no sha256 covers it.

    As plain JSON: Zarr would allocate what an array's type claims before anyone could compare it.

    Args:
        folder: of the store.
        specs: its arrays by name.
        extent: from its attributes.

    Raises:
        CacheError: an array's is missing, unreadable or of another form.
    """
    for name, spec in specs.items():
        expected_metadata = layout.array_metadata(
            spec, tars=len(extent.tars), aug_seeds=extent.aug_seeds, seeds_per_unit=extent.seeds_per_unit
        )
        metadata = _normalized_metadata(folder, name, spec)
        for key, expected in expected_metadata.items():
            if not _equal(metadata[key], expected):
                where, value = folder.path / name / METADATA, _SHORT.repr(metadata[key])
                raise errors.CacheError.for_value(where, key, expected, value, RESTORE)


def _normalized_metadata(folder: storage.Folder, name: str, spec: layout.ArraySpec) -> dict[str, object]:
    """An array's metadata, so far as it decides how its objects are read, in the one of several ways to write it."""
    data = read_document(folder, f"{name}/{METADATA}", MAX_ARRAY_BYTES)
    where = folder.path / name / METADATA
    if not isinstance(data, dict) or (data.get("zarr_format"), data.get("node_type")) != (3, "array"):
        raise errors.CacheError(where, "cannot be read (is of no Zarr v3 array)", RESTORE)
    # The format has these alone; what else there is must say that it need not be understood.
    others = [key for key, value in data.items() if key not in _KEYS and not _is_optional(value)]
    if others:
        key = _SHORT.repr(others[0])
        raise errors.CacheError(where, f"cannot be read ({key} is not a known key)", RESTORE)
    # Zarr's specification and its releases have several spellings for one array. Each is brought to the one that the
    # layout writes; what is not understood stays as it is, and is refused as different.
    codecs = data.get("codecs")
    return {
        "shape": data.get("shape"),
        "data_type": _normalized_name(data.get("data_type")),
        "chunk_grid": _normalized_name(data.get("chunk_grid")),
        "chunk_key_encoding": _normalized_key_encoding(data.get("chunk_key_encoding")),
        "fill_value": _normalized_fill(data.get("fill_value"), spec.dtype),
        "codecs": [_normalized_outer_codec(codec, spec.dtype) for codec in codecs]
        if isinstance(codecs, list)
        else codecs,
        "storage_transformers": data.get("storage_transformers") or [],
    }


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring = 8, 8, 8, 60
_KEYS = {
    "zarr_format",
    "node_type",
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "fill_value",
    "codecs",
    "storage_transformers",
    "attributes",
    "dimension_names",
}
# Keys of a codec's configuration that its decoder does not read; the order of a single byte's bytes among them.
_IDLE = {"blosc": {"typesize", "cname", "clevel", "shuffle", "blocksize"}, "bytes": {"endian"}}
_INDEX_DTYPE = "uint64"


def _equal(value: object, expected: object) -> bool:
    """Whether two pieces of JSON are the same, a number of the same kind included."""
    # The first comparison ends where they differ, so that the second one meets no more than what is expected.
    return value == expected and hashing.canonical_json(value) == hashing.canonical_json(expected)


def _is_optional(value: object) -> bool:
    return isinstance(value, dict) and value.get("must_understand") is False


def _normalized_name(value: object) -> object:
    """A name with its configuration; alone where it has none."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return value
    configuration = value.get("configuration", {})
    return {"name": value["name"], "configuration": configuration} if configuration != {} else value["name"]


def _normalized_key_encoding(value: object) -> object:
    if isinstance(value, dict) and "separator" in value:
        value = {"name": value.get("name"), "configuration": {"separator": value["separator"]}}
    encoding = _normalized_name(value)
    return {"name": "default", "configuration": {"separator": "/"}} if encoding == "default" else encoding


def _normalized_fill(value: object, dtype: str) -> object:
    """NaN by its name, of whatever bits it is and however they are written."""
    if dtype not in _FLOATS:
        return int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(value, str) and value.startswith("0x") and len(value) == 2 + 2 * struct.calcsize(_FLOATS[dtype]):
        try:
            (value,) = struct.unpack(f">{_FLOATS[dtype]}", bytes.fromhex(value[2:]))
        except ValueError:
            return value
    return layout.json_fill_value(value)


_FLOATS = {"float16": "e", "float32": "f"}


def _normalized_outer_codec(value: object, dtype: str) -> object:
    """A codec of an array; that of shards has codecs of its own, which have none."""
    if not isinstance(value, dict) or value.get("name") != "sharding_indexed":
        return _normalized_codec(value, dtype)
    inner = value.get("configuration")
    if not isinstance(inner, dict):
        return value
    configuration = {"index_location": "end", "index_codecs": [{"name": "bytes"}, {"name": "crc32c"}], **inner}
    for key, element_dtype in (("codecs", dtype), ("index_codecs", _INDEX_DTYPE)):
        if isinstance(parts := configuration.get(key), list):
            configuration[key] = [_normalized_codec(part, element_dtype) for part in parts]
    return {"name": "sharding_indexed", "configuration": configuration}


def _normalized_codec(value: object, dtype: str) -> object:
    """Only what a decoder reads, for other releases may write other defaults: Blosc's parameters stand in the data."""
    codec = _normalized_name(value)
    codec = {"name": codec} if isinstance(codec, str) else codec
    if not isinstance(codec, dict) or not isinstance(configuration := codec.get("configuration", {}), dict):
        return codec
    name = codec.get("name")
    if name == "bytes" and np.dtype(dtype).itemsize > 1:
        return {"name": name, "configuration": {"endian": "little", **configuration}}
    is_idle = set(configuration) <= _IDLE.get(str(name), set())
    return {"name": name} if is_idle else codec
