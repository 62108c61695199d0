"""An array's metadata is compared as plain JSON: as Zarr would understand it, and before Zarr could."""

import copy
import json
import random  # noqa: TID251 - a seeded stream of test cases
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from zarr.core.metadata import ArrayV3Metadata

from teachonce.core import errors, storage
from teachonce.format import layout, schema, zarr_arrays
from teachonce.store import store_metadata, store_reader

ROOT = Path(__file__).parents[2]
EXTENT = {"tars": 3, "aug_seeds": 4, "seeds_per_unit": 2}
NAMES = ("key", "canary", "class_id", "logp", "lse", "tail", "tail_components")
CHANGES = 1500


def written(recipe, folder: Path) -> dict[str, layout.ArraySpec]:
    """Arrays of every kind, as Zarr writes them."""
    tail = schema.TransformTail(rank=4, step=0.5, basis_sha256="0" * 64)
    specs = layout.array_specs(recipe(3).model_copy(update={"tail": tail}), 6)
    specs["logits"] = layout.array_specs(recipe("all"), 6)["logits"]
    specs["wide_id"] = layout.ArraySpec("uint32", (6, 3), schema.FILL_CLASS["uint32"], "unit")
    group = zarr_arrays.create_group(str(folder))
    for name, spec in specs.items():
        zarr_arrays.create_array(group, name, spec, **EXTENT)
    return specs


def refused(folder: Path, name: str, spec: layout.ArraySpec, data: object) -> str | None:
    """What is said of an array's metadata; None where it is taken."""
    (folder / name / "zarr.json").write_text(json.dumps(data))
    extent = schema.Extent.model_construct(tars=(None,) * 3, aug_seeds=4, seeds_per_unit=2)
    text = None
    try:
        store_metadata.require_array_metadata(storage.Folder(folder), {name: spec}, extent)
    except errors.CacheError as error:
        text = str(error)
    assert "\n" not in (text or "")
    assert len(text or "") < 1500
    return text


def as_zarr_reads(data: object) -> dict[str, object] | None:
    """What decides how objects are read, by Zarr's own understanding; None where it has none."""
    try:
        facts = ArrayV3Metadata.from_dict(copy.deepcopy(data)).to_dict()
    except Exception:
        return None
    names = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "storage_transformers")
    return {name: facts.get(name) for name in names} | {"codecs": decoding(facts["codecs"])}


def decoding(codecs: object) -> object:
    if isinstance(codecs, dict):
        names = ("name", "configuration", "endian", "chunk_shape", "codecs", "index_codecs", "index_location")
        return {name: decoding(codecs[name]) for name in names if name in codecs}
    return [decoding(part) for part in codecs] if isinstance(codecs, list | tuple) else codecs


def test_what_zarr_writes_is_what_the_layout_says(recipe, tmp_path):
    for name, spec in written(recipe, tmp_path).items():
        data = json.loads((tmp_path / name / "zarr.json").read_text())
        assert refused(tmp_path, name, spec, data) is None
        plain = {"zarr_format": 3, "node_type": "array", **layout.array_metadata(spec, **EXTENT)}
        for codecs in (plain["codecs"], plain["codecs"][0].get("configuration", {}).get("codecs", ())):
            for codec in codecs:
                if codec["name"] == "blosc":
                    values = {"typesize": 1, "cname": "zstd", "clevel": 5, "shuffle": "shuffle", "blocksize": 0}
                    codec["configuration"] = values
        assert as_zarr_reads(plain) == as_zarr_reads(data)


def sharded(data):
    return data["codecs"][0]["configuration"]


def without(key):
    return lambda data: data.pop(key)


SPELLINGS = {
    "no attributes": without("attributes"),
    "no transformers": without("storage_transformers"),
    "names of axes": lambda data: data.update(dimension_names=["tar", "seed", "row", None]),
    "more that need not be understood": lambda data: data.update(note={"must_understand": False, "x": [1]}),
    "a note": lambda data: data.update(attributes={"made": "by hand"}),
    "the default encoding alone": lambda data: data.update(chunk_key_encoding={"name": "default"}),
    "an encoding in short": lambda data: data.update(chunk_key_encoding={"name": "default", "separator": "/"}),
    "NaN by its bits": lambda data: data.update(fill_value="0x7e00"),
    "NaN as Python writes it": lambda data: data.update(fill_value=float("nan")),
    "other settings of Blosc": lambda data: sharded(data)["codecs"][1].update(
        configuration={"typesize": 4, "cname": "lz4", "clevel": 9, "shuffle": "noshuffle", "blocksize": 512}
    ),
    "the index at its default place": lambda data: sharded(data).pop("index_location"),
    "the codecs of an index by default": lambda data: sharded(data).pop("index_codecs"),
    "an empty configuration": lambda data: sharded(data)["codecs"][2].update(configuration={}),
    "the machine's order": lambda data: sharded(data)["index_codecs"][0].pop("configuration"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings_of_the_same_are_taken(recipe, tmp_path, spelling):
    spec = written(recipe, tmp_path)["logp"]
    data = json.loads((tmp_path / "logp/zarr.json").read_text())
    before = as_zarr_reads(data)
    SPELLINGS[spelling](data)
    assert as_zarr_reads(data) == before
    assert refused(tmp_path, "logp", spec, data) is None


def changed(data: object, draw: random.Random) -> object:
    """The metadata with one thing changed, or two."""
    data = copy.deepcopy(data)
    values = (
        None,
        "",
        "x",
        [],
        {},
        [[]],
        0,
        1,
        2,
        3,
        4,
        6,
        -1,
        2**70,
        0.5,
        3.0,
        "NaN",
        "0x7e0",
        "0xzzzz",
        "0x3c00",
        "/",
        ".",
        "big",
        "little",
        "end",
        "start",
        "float16",
        "uint8",
        {"name": "default"},
        {"name": "crc32c"},
        ["x"] * 3,
        {"name": "bytes"},
        {"must_understand": False},
        {"name": "float16", "configuration": {}},
        "bytes",
        "crc32c",
        "0x7fc00000",
    )
    for _ in range(draw.choice((1, 1, 2))):
        spots: list[tuple[object, object]] = []

        def walk(node, spots=spots):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                spots.append((node, key))
                if isinstance(node[key], dict | list):
                    walk(node[key])

        walk(data)
        parent, key = draw.choice(spots)
        kind = draw.random()
        if kind < 0.55:
            parent[key] = copy.deepcopy(draw.choice(values))
        elif kind < 0.75:
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(draw.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
        else:
            parent[draw.choice(("x", "separator", "endian", "codecs"))] = copy.deepcopy(draw.choice(values))
    return data


def test_nothing_is_taken_that_zarr_reads_otherwise(recipe, tmp_path):
    specs = written(recipe, tmp_path)
    good = {name: json.loads((tmp_path / name / "zarr.json").read_text()) for name in NAMES}
    draw = random.Random("metadata")  # noqa: S311
    taken = 0
    for number in range(CHANGES):
        name = draw.choice(NAMES)
        data = changed(good[name], draw)
        said, understood = refused(tmp_path, name, specs[name], data), as_zarr_reads(data)
        same = understood == as_zarr_reads(good[name])
        taken += said is None
        if said is None:
            # Where Zarr understands nothing, its wish goes beyond what decides how an object is read.
            assert same or understood is None, f"{number}: {name}: {data}"
        else:
            assert not same, f"{number}: {name}: {said}"
    assert CHANGES / 20 < taken < CHANGES / 2


CLAIMS = {
    "raw": {"data_type": {"name": "raw_bytes", "configuration": {"length_bytes": 1 << 29}}, "fill_value": ""},
    "text": {"data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 1 << 33}}, "fill_value": ""},
    "bytes": {
        "data_type": {"name": "null_terminated_bytes", "configuration": {"length_bytes": 1 << 33}},
        "fill_value": "",
    },
    "structure": {
        "data_type": {
            "name": "structured",
            "configuration": {"fields": [["a", {"name": "raw_bytes", "configuration": {"length_bytes": 1 << 33}}]]},
        },
        "fill_value": "",
    },
    "shape": {"shape": [1 << 62] * 4},
    "axes": {"shape": [1] * 9000},
    "fill": {"fill_value": "x" * 60_000},
    "number": {"fill_value": int("9" * 4000)},
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_small_file_claims_nothing(damaged, claim):
    """By a process that may have hardly more memory than it has."""
    damaged.edit("logp/zarr.json", lambda data: data | CLAIMS[claim])
    code = f"""if True:
        import resource
        from teachonce.core import errors
        from teachonce.store import store_reader
        pages = int(open("/proc/self/statm").read().split()[0])
        most = pages * resource.getpagesize() + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            store_reader.open({str(damaged.path)!r})
        except errors.CacheError as error:
            print(error)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    key = next(iter(CLAIMS[claim]))
    assert done.stdout.startswith(f"{damaged.path}/logp/zarr.json: {'shape' if key == 'shape' else key} must be ")
    assert len(done.stdout) < 1500
    assert done.stdout.count("\n") == 1


def test_deep_metadata_is_refused_in_a_line(damaged):
    path = damaged.path / "logp/zarr.json"
    data = json.loads(path.read_text())
    inner: object = {"name": "bytes"}
    for _ in range(300):
        inner = {"name": "sharding_indexed", "configuration": {"chunk_shape": [1], "codecs": [inner]}}
    path.write_text(json.dumps(data | {"codecs": [inner]}))
    with pytest.raises(errors.CacheError, match="codecs must be"):
        store_reader.open(damaged.path)
    path.write_text(json.dumps(data).replace('"NaN"', "[" * 20_000 + "]" * 20_000))
    with pytest.raises(errors.CacheError, match="nested too deeply"):
        store_reader.open(damaged.path)


def test_reading_needs_no_zarr(damaged):
    code = (
        f"import sys\nfrom teachonce.store import store_reader\nstore_reader.open({str(damaged.path)!r}).block(0, 0)\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'zarr'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
    assert np.isfinite(damaged.open().block(0, 0).logp_BK).all()
