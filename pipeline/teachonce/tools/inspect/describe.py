"""What a received cache says of itself, and what it takes on disk. Reads no row: `teachonce audit` proves them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from teachonce.core import config, errors, hashing, storage
from teachonce.format import layout, row_frontier, schema
from teachonce.store import fingerprint, store_reader, tau_range

RECORDS = "zarr.json, units.json"
_METADATA = "zarr.json"


class StoredPart(config.Model):
    """What one array, or all files beside the arrays, take on disk."""

    objects: int
    """Count of files."""
    bytes: int
    """Size of these files."""
    bytes_a_view: float
    """Size of these files, divided by the views of the store."""


class UnitEnvironment(config.Model):
    """What some units were made with: units of one environment are counted together."""

    units: int
    """How many units were made with it."""
    device: str
    """Device type, and count of threads on a CPU."""
    versions: dict[str, str]
    """Versions of libraries, and the kind of machine."""


class StoreDescription(config.Model):
    """All that a store says of itself, and its size on disk."""

    path: str
    """Folder of the store, or its URL."""
    format: int
    """Version of the format."""
    fingerprint: str
    """Digest of recipe and extent, as students record it."""
    recipe: schema.Recipe
    """What a row means."""
    tars: int
    """Count of tars whose samples have rows."""
    images: int
    """Count of samples with rows."""
    aug_seeds: int
    """Views of each sample."""
    seeds_per_unit: int
    """Views of each sample in one object of an array."""
    rows_per_tar: int
    """Rows of a tar that the arrays have space for; a tar may have fewer samples."""
    views: int
    """Count of rows: samples times aug seeds."""
    labelled: int
    """Count of rows whose image has a label."""
    teacher_top1: float | None
    """Share of the labelled rows whose label is the teacher's likeliest class; none without labels."""
    units: int
    """Count of units of work that it was made in."""
    missing: int
    """Count of objects whose file is not here, as in a partial download."""
    files: int
    """Count of files that are here."""
    bytes: int
    """Size of these files."""
    bytes_a_view: float
    """Size of these files, divided by the views."""
    parts: dict[str, StoredPart]
    """Size of each array, and of what lies beside them."""
    made_by: tuple[UnitEnvironment, ...]
    """What the units were made with, the most frequent first."""
    fidelity: dict[str, dict[str, float]]
    """Distances to the teacher's full softmax by `k=…,tau=…`; empty where rows are whole."""
    max_tv: float
    """Mean total variation up to which a tau counts as carried."""
    carries: dict[str, tuple[int, ...]]
    """Measured taus that are carried, by k; empty where rows are whole, which carry every tau."""


class CacheDescription(config.Model):
    """What a folder of stores, or one store, says of itself."""

    stores: dict[str, StoreDescription]
    """Stores by the name of their folder."""
    frontier: row_frontier.Frontier | None
    """What other forms of rows would take and lose, where the cache stage measured it."""


def summarise_cache(location: str | Path, max_tv: float) -> CacheDescription:
    """Describe a folder of stores, or one store.

    Args:
        location: folder of the cache, or its URL.
        max_tv: mean total variation up to which a tau counts as carried.

    Raises:
        CacheError: there is no store, or one cannot be read.
    """
    folder = storage.open_folder(location, errors.CacheError)
    if folder.holds(_METADATA):
        stores = {folder.path.name: location}
    else:
        names = (name for name in sorted(folder.entries()) if folder.holds(f"{name}/{_METADATA}"))
        stores = {name: storage.subfolder(location, name) for name in names}
    if not stores:
        raise errors.CacheError(
            folder, "holds no cache, no folder with a zarr.json", "Fetch it: dvc pull; or make it: dvc repro cache"
        )
    return CacheDescription(
        stores={name: summarise_store(path, max_tv) for name, path in stores.items()},
        frontier=row_frontier.read(location),
    )


def summarise_store(path: str | Path, max_tv: float) -> StoreDescription:
    """Describe one store, some of whose objects may be missing.

    Raises:
        CacheError: it cannot be read.
    """
    # Also where objects are missing: what is here of a partial download can be told from the records alone.
    cache = store_reader.open(path, incomplete=True)
    extent, units = cache.extent, list(cache.units())
    images = sum(tar.nsamples for tar in extent.tars)
    views = images * extent.aug_seeds
    file_sizes = cache.sizes()
    parts, missing = _parts(cache, views, file_sizes)
    # Each unit counts for itself: sums over units need no row, and hold for a store that is not here as a whole.
    labelled = views - sum(unit.unlabelled for unit in units)
    return StoreDescription(
        path=str(path),
        format=cache.recipe.format,
        fingerprint=fingerprint.cache_digest(cache),
        recipe=cache.recipe,
        tars=len(extent.tars),
        images=images,
        aug_seeds=extent.aug_seeds,
        seeds_per_unit=extent.seeds_per_unit,
        rows_per_tar=extent.rows_per_tar,
        views=views,
        labelled=labelled,
        teacher_top1=sum(unit.correct for unit in units) / labelled if labelled > 0 else None,
        units=len(units),
        missing=missing,
        files=len(file_sizes),
        bytes=sum(file_sizes.values()),
        bytes_a_view=sum(file_sizes.values()) / views,
        parts=parts,
        made_by=_makers(units),
        fidelity=cache.fidelity,
        max_tv=max_tv,
        carries={
            str(k): tau_range.carried_taus(cache.fidelity, k, max_tv) for k in tau_range.distances_by_k(cache.fidelity)
        },
    )


def _parts(cache: store_reader.Cache, views: int, file_sizes: dict[str, int]) -> tuple[dict[str, StoredPart], int]:
    """Objects by array, the rest of the files, and how many objects are missing."""
    sizes: dict[str, list[int]] = {name: [] for name in layout.array_specs(cache.recipe, cache.extent.rows_per_tar)}
    missing = 0
    # By the objects that the records name: a stray file in an array's folder counts among the records, not as a row.
    for name, path in _objects(cache):
        size = file_sizes.get(path.relative_to(cache.path).as_posix())
        if size is None:
            missing += 1
        else:
            sizes[name].append(size)
    counts = {name: (len(object_sizes), sum(object_sizes)) for name, object_sizes in sizes.items()}
    objects, array_bytes = (sum(column) for column in zip(*counts.values(), strict=True))
    counts[RECORDS] = len(file_sizes) - objects, sum(file_sizes.values()) - array_bytes
    parts = {name: StoredPart(objects=n, bytes=size, bytes_a_view=size / views) for name, (n, size) in counts.items()}
    return parts, missing


def _objects(cache: store_reader.Cache) -> Iterator[tuple[str, Path]]:
    for name, unit in cache.objects():
        yield name, cache.place(name, unit.tar, unit.group)
    for name, spec in layout.array_specs(cache.recipe, cache.extent.rows_per_tar).items():
        if spec.per == "store":
            yield name, cache.place(name, 0, 0)


def _makers(units: list[schema.UnitRecord]) -> tuple[UnitEnvironment, ...]:
    # Counted by their canonical JSON: a map of versions has no hash.
    counts = Counter(_environment_key(unit) for unit in units)
    example_units = {_environment_key(unit): unit for unit in units}
    return tuple(
        UnitEnvironment(units=count, device=example_units[key].device, versions=example_units[key].versions)
        for key, count in counts.most_common()
    )


def _environment_key(unit: schema.UnitRecord) -> str:
    return hashing.canonical_json({"device": unit.device, "versions": unit.versions})
