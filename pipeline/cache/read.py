"""Read a store: ten lines join it to anyone's loop.

    cache = read.open("artifacts/cache/train.zarr")
    rows = cache.block("train-000000.tar", aug_seed=3)          # rows of one tar, in row order
    rows = cache.rows(["digits/0001", "digits/0042"], aug_seed=3)   # rows of any keys

Every block is checked against the sha256 its writer recorded before its first row is given out. One row costs as much
as its block: ask for many keys at a time.
"""

import asyncio
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import EllipsisType

import numpy as np
import numpy.typing as npt
import zarr
import zarr.storage
from zarr.core import sync

from pipeline.base import config, errors, hashing, places
from pipeline.cache import basis, codec, form, layout, schema

_KEPT_KEYS = 64  # tars


class Cache:
    """An opened store. Opened inside the process that reads it: Zarr's threads do not survive a fork."""

    def __init__(
        self, folder: places.Folder, attributes: schema.Attributes, units: Sequence[schema.Unit], group: zarr.Group
    ) -> None:
        self.path = folder.path
        self._folder = folder
        self.recipe = attributes.recipe
        self.extent = attributes.extent
        self.fidelity = attributes.fidelity
        self._units = {(unit.tar, unit.group): unit for unit in units}
        self._specs = layout.arrays(self.recipe, self.extent.rows_per_tar)
        for name in self._of_store():
            folder.file(name)
        self._arrays = form.arrays(self.path, group, self._specs, self.extent)
        self._verified: set[tuple[str, int, int]] = set()
        # An epoch comes back to each tar; a bound, so that memory does not grow with the number of tars.
        self._keys = functools.lru_cache(maxsize=_KEPT_KEYS)(self._keys_of)
        self.row_names = tuple(name for name, spec in self._specs.items() if spec.per == "unit")
        self.basis = self._basis()

    def tar(self, name: str) -> int:
        """Position of a tar, by sha256 or by its name in the index.

        Raises:
            IdentityError: the cache has no rows of it.
        """
        for position, tar in enumerate(self.extent.tars):
            if name in {tar.sha256, tar.url}:
                return position
        raise errors.IdentityError(
            f"{self.path}: has no rows of {name}; it holds {len(self.extent.tars)} tars. {_GROW}"
        )

    def block(self, tar: str | int, aug_seed: int, *, lse: bool = True) -> codec.Rows:
        """Rows of one tar under one aug seed, in row order: N rows (`codec.Rows` gives shapes and dtypes).

        `lse=False` leaves out what only gives the raw logits back, and saves its read.

        Raises:
            IdentityError: the cache does not hold the tar or the seed.
            CacheError: the block is missing or damaged.
        """
        position = tar if isinstance(tar, int) else self.tar(tar)
        if not 0 <= aug_seed < self.extent.aug_seeds:
            raise errors.IdentityError(
                errors.refusal(self.path, "aug_seed", f"in 0…{self.extent.aug_seeds - 1}", aug_seed, _GROW)
            )
        group = aug_seed // self.extent.seeds_per_unit
        count = self.extent.tars[position].nsamples
        names = self.row_names if lse else [name for name in self.row_names if name != "lse"]
        found = self._read(names, position, group, (position, aug_seed))
        rows = {name: (array.T if self._specs[name].rows_last else array)[:count] for name, array in found.items()}
        for name, array in rows.items():
            fill = self._specs[name].fill
            if bool((np.isnan(array) if array.dtype.kind == "f" else array == fill).any()):
                raise errors.CacheError(
                    f"{self.place(name, position, group)}: holds rows that were never written. {form.RESTORE}"
                )
        return codec.from_arrays(rows)

    def stored(self, tar: int, group: int, names: Sequence[str]) -> dict[str, npt.NDArray[np.generic]]:
        """Arrays of a unit as they are stored, (seeds, rows_per_tar, …), rows without a sample included."""
        first = group * self.extent.seeds_per_unit
        return self._read(names, tar, group, (tar, slice(first, first + self.extent.seeds_per_unit)))

    def keys(self, tar: str | int) -> tuple[str, ...]:
        """Keys of one tar in row order."""
        return self._keys(tar if isinstance(tar, int) else self.tar(tar))

    def rows(self, keys: Sequence[str], aug_seed: int) -> codec.Rows:
        """Rows of any keys under one aug seed, in the order of `keys`; each block is read once.

        Raises:
            IdentityError: a key is not in the cache.
        """
        missing = [key for key in keys if key not in self._place_of_key]
        if missing:
            raise errors.IdentityError(
                f"{self.path}: has no row of {missing[0]!r} ({len(missing)} keys missing). {_GROW}"
            )
        places = np.array([self._place_of_key[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        parts: dict[str, npt.NDArray[np.generic]] = {}
        for position in np.unique(places[:, 0]):
            at = np.flatnonzero(places[:, 0] == position)
            for name, array in self.block(int(position), aug_seed).arrays().items():
                into = parts.setdefault(name, np.empty((len(keys), *array.shape[1:]), array.dtype))
                into[at] = array[places[at, 1]]
        return codec.from_arrays(parts)

    def canary(self, tar: int) -> npt.NDArray[np.uint8]:
        """The remembered pixels of a tar's view under its canary of group 0: uint8 (3, size, size)."""
        return self._read(["canary"], tar, 0, (tar,))["canary"].astype(np.uint8, copy=False)

    def unit(self, tar: int, group: int) -> schema.Unit:
        """The record of one unit."""
        return self._units[tar, group]

    def units(self) -> Iterator[schema.Unit]:
        """All unit records."""
        yield from self._units.values()

    def sizes(self) -> dict[str, int]:
        """Bytes of every file of the store by its name, whether or not the format knows it."""
        return self._folder.sizes()

    def stored_bytes(self) -> int:
        """Bytes of all files of the store."""
        return sum(self.sizes().values())

    @functools.cached_property
    def _place_of_key(self) -> dict[str, tuple[int, int]]:
        places: dict[str, tuple[int, int]] = {}
        for tar, entry in enumerate(self.extent.tars):
            for row, key in enumerate(self.keys(tar)):
                if key in places:
                    other = self.extent.tars[places[key][0]].url
                    raise errors.CacheError(
                        f"{self.path}: key {key!r} is in {other} and in {entry.url}. Ask for blocks, tar by tar"
                    )
                places[key] = tar, row
        return places

    def _basis(self) -> basis.Basis | None:
        """What a transform tail's coefficients stand on."""
        if not isinstance(self.recipe.tail, schema.TransformTail):
            return None
        names = [name for name, spec in self._specs.items() if spec.per == "store"]
        found = basis.from_arrays(self._read(names, 0, 0, ...))
        if found.sha256() != self.recipe.tail.basis_sha256:
            raise errors.CacheError(
                errors.refusal(
                    self.path, "sha256 of tail_…", self.recipe.tail.basis_sha256, found.sha256(), form.RESTORE
                )
            )
        return found

    def _keys_of(self, tar: int) -> tuple[str, ...]:
        entry = self.extent.tars[tar]
        keys = tuple(self._read(["key"], tar, 0, (tar,))["key"][: entry.nsamples].tolist())
        if hashing.keys_crc32(keys) != entry.keys_crc32:
            raise errors.CacheError(f"{self.place('key', tar, 0)}: keys differ from the recorded crc32. {form.RESTORE}")
        return keys

    def _read(
        self, names: Sequence[str], tar: int, group: int, place: tuple[int | slice, ...] | EllipsisType
    ) -> dict[str, npt.NDArray[np.generic]]:
        for name in names:
            self._verify(name, tar, group)

        async def together() -> list[object]:
            reads = [self._arrays[name].async_array.getitem(place) for name in names]
            return await asyncio.gather(*reads, return_exceptions=True)

        # Most of a small read is waiting for Zarr's threads: waiting once for all arrays takes a third less.
        found = dict(zip(names, sync.sync(together()), strict=True))
        for name, result in found.items():
            if isinstance(result, OSError | ValueError | RuntimeError):
                raise errors.CacheError(
                    f"{self.place(name, tar, group)}: cannot be decoded ({form.line(result)}). {form.RESTORE}"
                ) from result
            if isinstance(result, BaseException):
                raise result
        return {name: np.asarray(result) for name, result in found.items()}

    def _verify(self, name: str, tar: int, group: int) -> None:
        # Zarr's crc32c finds a damaged chunk; only the recorded sha256 finds one that was swapped for another. The
        # store's own arrays have theirs in the recipe.
        if (name, tar, group) in self._verified or self._specs[name].per == "store":
            return
        recorded = self._units[tar, group].objects.get(name)
        path = self._folder.file(layout.object_path(name, self._specs[name], tar, group), recorded)
        try:
            found = hashing.sha256_file(path)
        except OSError as error:
            raise errors.CacheError(f"{path}: is missing ({error.strerror}). {form.RESTORE}") from error
        if found != recorded:
            raise errors.CacheError(f"{path}: sha256 must be as recorded, {recorded}. Got {found}. {form.RESTORE}")
        self._verified.add((name, tar, group))

    def place(self, name: str, tar: int, group: int) -> Path:
        """Where the object of an array for a unit lies."""
        return self.path / layout.object_path(name, self._specs[name], tar, group)

    def _of_store(self) -> Iterator[str]:
        """Files that no unit's record has a digest of."""
        for name, spec in self._specs.items():
            yield f"{name}/zarr.json"
            if spec.per == "store":
                yield layout.object_path(name, spec, 0, 0)

    def objects(self) -> Iterator[tuple[str, schema.Unit]]:
        """Every object by its array's name and its unit's record."""
        for unit in self.units():
            for name in layout.of_unit(self._specs, unit.group):
                yield name, unit


_GROW = "Grow it: add the tars or raise aug_seeds, then dvc repro cache"


def open(path: str | Path, *, incomplete: bool = False) -> Cache:  # noqa: A001 - zarr.open, Image.open: the field's word
    """Open a store and check that it is whole: attributes, array shapes, a record and a file for every unit.

    `path` may be a URL; an object is then fetched when its first row is read, and kept (`base.places`).
    `incomplete` goes on where an object's file is missing; a read that needs it refuses.

    Raises:
        CacheError: not a store, another format, or something is missing; the message names what.
        StorageError: the place behind the URL cannot be reached.
    """
    folder = places.folder(path, errors.CacheError)
    path = folder.path
    # A link to a device would be read without end.
    for name in ("zarr.json", schema.UNITS):
        if not folder.holds(name):
            raise errors.CacheError(f"{folder}: is not a whole cache ({name} is missing). {form.RESTORE}")
        folder.file(name)
    try:
        group = zarr.open_group(str(path), mode="r", zarr_format=3, use_consolidated=False)
        units = json.loads((path / schema.UNITS).read_text(encoding="utf-8"))
    except Exception as error:  # damaged metadata makes zarr fail in any way
        raise errors.CacheError(f"{path}: is not a whole cache ({form.line(error)}). {form.RESTORE}") from error
    attributes = _attributes(path, group.attrs.get(schema.ATTRIBUTE))
    if not isinstance(units, list):
        raise errors.CacheError(f"{path / schema.UNITS}: must hold a list of units. {form.RESTORE}")
    records = [_parse(unit, schema.Unit, str(path / schema.UNITS)) for unit in units]
    cache = Cache(folder, attributes, records, group)
    _refuse_records(cache, records)
    for place in (cache.place(name, unit.tar, unit.group) for name, unit in cache.objects()):
        name = place.relative_to(path).as_posix()
        if not incomplete and not folder.holds(name):
            raise errors.CacheError(f"{folder}/{name}: is missing. {form.RESTORE}")
    return cache


def _attributes(path: Path, data: object) -> schema.Attributes:
    found = data.get("format") if isinstance(data, dict) else None
    if found not in schema.FORMATS:
        cure = "Install the release that reads it, or make it again: dvc repro cache"
        known = " or ".join(map(str, schema.FORMATS))
        raise errors.CacheError(errors.refusal(path, "format", known, found, cure))
    return _parse(data, schema.Attributes, f"{path}/zarr.json")


def _parse(data: object, model: type[config.M], where: str) -> config.M:
    try:
        return config.parse(data, model, where)
    except errors.ConfigError as error:
        raise errors.CacheError(f"{error}. {form.RESTORE}") from error


def _refuse_records(cache: Cache, records: Sequence[schema.Unit]) -> None:
    extent, where = cache.extent, cache.path / schema.UNITS
    tars, groups = len(extent.tars), extent.aug_seeds // extent.seeds_per_unit
    found = {(record.tar, record.group) for record in records if record.tar < tars and record.group < groups}
    # Counted, not listed: the extent is untrusted, and may claim any number of units.
    if len(found) != tars * groups or len(records) != len(found):
        raise errors.CacheError(
            errors.refusal(where, "units", f"the {tars * groups} of the extent", len(records), form.RESTORE)
        )
    for record in records:
        rows, canary = extent.tars[record.tar].nsamples, record.canary
        # A canary outside its unit would never be met, hence never replayed.
        if canary.row >= rows or canary.aug_seed // extent.seeds_per_unit != record.group:
            key, got = f"canary of tar {record.tar}, group {record.group}", f"{canary.row}, {canary.aug_seed}"
            raise errors.CacheError(errors.refusal(where, key, f"one of its {rows} rows and seeds", got, form.RESTORE))
