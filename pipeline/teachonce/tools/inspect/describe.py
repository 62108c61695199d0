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
    """What an array, or what lies beside the arrays, takes."""

    objects: int
    """Files."""
    bytes: int
    """Their size."""
    bytes_a_view: float
    """The same by view."""


class UnitEnvironment(config.Model):
    """What made some units."""

    units: int
    """How many."""
    device: str
    """Device type, and count of threads on a CPU."""
    versions: dict[str, str]
    """Libraries and machine."""


class StoreDescription(config.Model):
    """A store."""

    path: str
    """Its folder."""
    format: int
    """Version of the format."""
    fingerprint: str
    """Of recipe and extent, as students record it."""
    recipe: schema.Recipe
    """What a row means."""
    tars: int
    """Tars whose samples have rows."""
    images: int
    """Samples."""
    aug_seeds: int
    """Views of each."""
    seeds_per_unit: int
    """Views of each in one object."""
    rows_per_tar: int
    """Room for rows of a tar."""
    views: int
    """Rows."""
    labelled: int
    """Rows of images that have a label."""
    teacher_top1: float | None
    """Share of these whose label is the teacher's likeliest class; none where there are none."""
    units: int
    """Units of work it was made in."""
    missing: int
    """Objects whose file is not here."""
    files: int
    """Count of files that are here."""
    bytes: int
    """Their size."""
    bytes_a_view: float
    """The same by view."""
    parts: dict[str, StoredPart]
    """By array, and what lies beside them."""
    made_by: tuple[UnitEnvironment, ...]
    """The most units first."""
    fidelity: dict[str, dict[str, float]]
    """Distances to the teacher's full softmax by `k=…,tau=…`; empty where rows are whole."""
    max_tv: float
    """Mean total variation up to which a tau counts as carried."""
    carries: dict[str, tuple[int, ...]]
    """Measured taus that are carried, by k; empty where rows are whole, which carry every tau."""


class CacheDescription(config.Model):
    """A folder of stores, or one of them."""

    stores: dict[str, StoreDescription]
    """By name."""
    frontier: row_frontier.Frontier | None
    """What other forms of rows would take and lose, where the cache stage measured it."""


def summarise_cache(where: str | Path, max_tv: float) -> CacheDescription:
    """Describe a folder of stores, or one store.

    Args:
        where: the cache's folder, or its URL.
        max_tv: mean total variation up to which a tau counts as carried.

    Raises:
        CacheError: there is no store, or one cannot be read.
    """
    folder = storage.open_folder(where, errors.CacheError)
    if folder.holds(_METADATA):
        stores = {folder.path.name: where}
    else:
        names = (name for name in sorted(folder.entries()) if folder.holds(f"{name}/{_METADATA}"))
        stores = {name: storage.subfolder(where, name) for name in names}
    if not stores:
        raise errors.CacheError(
            folder, "holds no cache, no folder with a zarr.json", "Fetch it: dvc pull; or make it: dvc repro cache"
        )
    return CacheDescription(
        stores={name: summarise_store(path, max_tv) for name, path in stores.items()}, frontier=row_frontier.read(where)
    )


def summarise_store(path: str | Path, max_tv: float) -> StoreDescription:
    """Describe one store, some of whose objects may be missing.

    Raises:
        CacheError: it cannot be read.
    """
    found = store_reader.open(path, incomplete=True)
    extent, units = found.extent, list(found.units())
    images = sum(tar.nsamples for tar in extent.tars)
    views = images * extent.aug_seeds
    taken = found.sizes()
    parts, missing = _parts(found, views, taken)
    labelled = views - sum(unit.unlabelled for unit in units)
    return StoreDescription(
        path=str(path),
        format=found.recipe.format,
        fingerprint=fingerprint.cache_digest(found),
        recipe=found.recipe,
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
        files=len(taken),
        bytes=sum(taken.values()),
        bytes_a_view=sum(taken.values()) / views,
        parts=parts,
        made_by=_makers(units),
        fidelity=found.fidelity,
        max_tv=max_tv,
        carries={
            str(k): tau_range.carried_taus(found.fidelity, k, max_tv) for k in tau_range.distances_by_k(found.fidelity)
        },
    )


def _parts(found: store_reader.Cache, views: int, files: dict[str, int]) -> tuple[dict[str, StoredPart], int]:
    """Objects by array, the rest of the files, and how many objects are missing."""
    sizes: dict[str, list[int]] = {name: [] for name in layout.array_specs(found.recipe, found.extent.rows_per_tar)}
    missing = 0
    for name, file in _objects(found):
        size = files.get(file.relative_to(found.path).as_posix())
        if size is None:
            missing += 1
        else:
            sizes[name].append(size)
    counts = {name: (len(each), sum(each)) for name, each in sizes.items()}
    objects, taken = (sum(column) for column in zip(*counts.values(), strict=True))
    counts[RECORDS] = len(files) - objects, sum(files.values()) - taken
    parts = {name: StoredPart(objects=n, bytes=size, bytes_a_view=size / views) for name, (n, size) in counts.items()}
    return parts, missing


def _objects(found: store_reader.Cache) -> Iterator[tuple[str, Path]]:
    for name, unit in found.objects():
        yield name, found.place(name, unit.tar, unit.group)
    for name, spec in layout.array_specs(found.recipe, found.extent.rows_per_tar).items():
        if spec.per == "store":
            yield name, found.place(name, 0, 0)


def _makers(units: list[schema.UnitRecord]) -> tuple[UnitEnvironment, ...]:
    counts = Counter(hashing.canonical_json({"device": unit.device, "versions": unit.versions}) for unit in units)
    makers = {hashing.canonical_json({"device": unit.device, "versions": unit.versions}): unit for unit in units}
    return tuple(
        UnitEnvironment(units=count, device=makers[made].device, versions=makers[made].versions)
        for made, count in counts.most_common()
    )
