"""Read a store: ten lines join it to anyone's loop.

    cache = store_reader.open("artifacts/cache/train.zarr")
    rows = cache.block("train-000000.tar", aug_seed=3)          # rows of one tar, in row order
    rows = cache.rows(["digits/0001", "digits/0042"], aug_seed=3)   # rows of any keys

Every block is checked against the sha256 its writer recorded before its first row is given out. One row costs as much
as its block: ask for many keys at a time.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teachonce.core import errors, hashing, storage
from teachonce.format import basis, codec, layout, schema
from teachonce.shards import sample_keys
from teachonce.store import row_rules, store_metadata, unit_records, verified_objects

_MAX_KEY_LISTS = 64  # tars


class Cache:
    """An opened store: what it says of itself, and its rows by tar and aug seed or by key."""

    def __init__(
        self, folder: storage.Folder, attributes: schema.Attributes, units: Sequence[schema.UnitRecord]
    ) -> None:
        self.path = folder.path
        self._folder = folder
        self.recipe = attributes.recipe
        self.extent = attributes.extent
        self.fidelity = attributes.fidelity
        self._units = {(unit.tar, unit.group): unit for unit in units}
        # Backwards: of two tars with one name, the first stays.
        tars = reversed(list(enumerate(self.extent.tars)))
        self._positions = {name: position for position, tar in tars for name in (tar.url, tar.sha256)}
        self._specs = layout.array_specs(self.recipe, self.extent.rows_per_tar)
        self._objects = verified_objects.VerifiedObjects(folder, self._specs, self.extent.seeds_per_unit, self._units)
        # An epoch comes back to each tar; a bound, so that memory does not grow with the number of tars.
        self._keys = functools.lru_cache(maxsize=_MAX_KEY_LISTS)(self._keys_of)
        self.row_names = tuple(name for name, spec in self._specs.items() if spec.per == "unit")
        self.basis = self._read_basis()

    def tar(self, name: str) -> int:
        """Position of a tar, by sha256 or by its name in the index.

        Raises:
            IdentityError: the cache has no rows of it.
        """
        if name in self._positions:
            return self._positions[name]
        raise errors.IdentityError(self.path, f"has no rows of {name}; it holds {len(self.extent.tars)} tars", _GROW)

    def block(self, tar: str | int, aug_seed: int, *, lse: bool = True) -> codec.Rows:
        """Rows of one tar under one aug seed, in row order: N rows (`codec.Rows` gives shapes and dtypes).

        Args:
            tar: its position in the extent, its sha256, or its name in the index.
            aug_seed: from 0 on, over the whole store.
            lse: False leaves out what only gives the raw logits back, and saves its read.

        Raises:
            IdentityError: the cache does not hold the tar or the seed.
            CacheError: the block is missing or damaged.
        """
        position = tar if isinstance(tar, int) else self.tar(tar)
        if not 0 <= aug_seed < self.extent.aug_seeds:
            raise errors.IdentityError.for_value(
                self.path, "aug_seed", f"in 0…{self.extent.aug_seeds - 1}", aug_seed, _GROW
            )
        group, seed = divmod(aug_seed, self.extent.seeds_per_unit)
        (rows,) = self._rows(position, group, [seed], lse=lse)
        return rows

    def blocks(self, tar: str | int, group: int, *, lse: bool = True) -> tuple[codec.Rows, ...]:
        """Rows of one tar under all aug seeds of a group, in their order: quicker than block by block.

        Args:
            tar: as in `block`.
            group: which aug seeds, from group × seeds_per_unit on.
            lse: as in `block`.

        Raises:
            IdentityError: the cache does not hold the tar or the group.
            CacheError: a block is missing or damaged.
        """
        position = tar if isinstance(tar, int) else self.tar(tar)
        groups = self.extent.aug_seeds // self.extent.seeds_per_unit
        if not 0 <= group < groups:
            raise errors.IdentityError.for_value(self.path, "group", f"in 0…{groups - 1}", group, _GROW)
        return self._rows(position, group, range(self.extent.seeds_per_unit), lse=lse)

    def _rows(self, tar: int, group: int, seeds: Sequence[int], *, lse: bool) -> tuple[codec.Rows, ...]:
        """Rows under some seeds of a unit, counted within it."""
        count = self.extent.tars[tar].nsamples
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for name in self.row_names:
            if name == "lse" and not lse:
                continue
            spec, stored = self._specs[name], self._objects.read(name, tar, group, seeds)
            # The tail is stored with rows last, for the compressor; here rows come first, as in all arrays.
            arrays[name] = stored.swapaxes(1, 2)[:, :count] if spec.rows_last else stored[:, :count]
            # Asked at each read, as it costs little; the rules below are asked once, until an object changes.
            if not codec.is_storable(
                arrays[name], self.recipe.teacher.num_classes if name == "class_id" else spec.fill
            ):
                raise self._invalid(arrays[name], name, self.place(name, tar, group))
        for index, seed in enumerate(seeds):
            self._require_plausible(tar, group, seed, {name: array[index] for name, array in arrays.items()})
        return tuple(
            codec.rows_from_arrays({name: array[index] for name, array in arrays.items()})
            for index in range(len(seeds))
        )

    def _require_plausible(self, tar: int, group: int, seed: int, rows: dict[str, npt.NDArray[np.generic]]) -> None:
        """Judge a seed's rows, unless they were judged and their objects have not changed since."""
        if self._objects.is_judged(tar, group, seed):
            return
        for name, fault in row_rules.row_violations(rows, self.recipe.teacher.num_classes).items():
            raise errors.CacheError(self.place(name, tar, group), fault, store_metadata.RESTORE)
        self._objects.mark_judged(tar, group, seed)

    def _invalid(self, array: npt.NDArray[np.generic], name: str, where: Path) -> errors.CacheError:
        if codec.is_storable(array, self._specs[name].fill):
            condition = f"below {self.recipe.teacher.num_classes}, the classes"
            return errors.CacheError.for_value(where, name, condition, array.max(), store_metadata.RESTORE)
        return errors.CacheError(where, "holds rows that were never written, or not finite", store_metadata.RESTORE)

    def stored(self, tar: int, group: int, name: str) -> npt.NDArray[np.generic]:
        """A unit's array as it is stored: (seeds, rows_per_tar, …), rows without a sample included.

        Args:
            tar: its position in the extent.
            group: of aug seeds.
            name: of the array.
        """
        return self._objects.read(name, tar, group, range(self.extent.seeds_per_unit))

    def keys(self, tar: str | int) -> tuple[str, ...]:
        """Keys of one tar in row order."""
        return self._keys(tar if isinstance(tar, int) else self.tar(tar))

    def rows(self, keys: Sequence[str], aug_seed: int) -> codec.Rows:
        """Rows of any keys under one aug seed, in the order of `keys`; each block is read once.

        Raises:
            IdentityError: a key is not in the cache.
        """
        keys = [sample_keys.resolve_key(key, self._place_of_key) or key for key in keys]
        missing = [key for key in keys if key not in self._place_of_key]
        if missing:
            near = sample_keys.closest_key(missing[0], self._place_of_key)
            cure = f"Did you mean {near!r}?" if near else _GROW
            raise errors.IdentityError(self.path, f"has no row of {missing[0]!r} ({len(missing)} keys missing)", cure)
        places = np.array([self._place_of_key[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        parts: dict[str, npt.NDArray[np.generic]] = {}
        # Tar by tar: one row costs as much as its block, so that no block is read twice.
        for position in np.unique(places[:, 0]):
            selected = np.flatnonzero(places[:, 0] == position)
            for name, array in self.block(int(position), aug_seed).arrays().items():
                target = parts.setdefault(name, np.empty((len(keys), *array.shape[1:]), array.dtype))
                target[selected] = array[places[selected, 1]]
        return codec.rows_from_arrays(parts)

    def canary(self, tar: int) -> npt.NDArray[np.uint8]:
        """The remembered pixels of a tar's view under its canary of group 0: uint8 (3, size, size)."""
        return self._objects.read("canary", tar, 0).astype(np.uint8, copy=False)

    def unit(self, tar: int, group: int) -> schema.UnitRecord:
        """The record of one unit."""
        return self._units[tar, group]

    def units(self) -> Iterator[schema.UnitRecord]:
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
        # Made when a key is first asked for: whoever reads tar by tar never needs the keys of all.
        places: dict[str, tuple[int, int]] = {}
        for tar, entry in enumerate(self.extent.tars):
            for row, key in enumerate(self.keys(tar)):
                if key in places:
                    other = self.extent.tars[places[key][0]].url
                    raise errors.CacheError(
                        self.path, f"key {key!r} is in {other} and in {entry.url}", "Ask for blocks, tar by tar"
                    )
                places[key] = tar, row
        return places

    def _read_basis(self) -> basis.Basis | None:
        """What a transform tail's coefficients stand on; None where the tail is not coded."""
        if not isinstance(self.recipe.tail, schema.TransformTail):
            return None
        # Once, when the store is opened: every row's meaning hangs on it.
        names = [name for name, spec in self._specs.items() if spec.per == "store"]
        tail_basis = basis.from_arrays({name: self._objects.read(name, 0, 0) for name in names})
        recorded, digest = self.recipe.tail.basis_sha256, tail_basis.sha256(self.recipe.tail.step)
        if digest != recorded:
            key = "sha256 of tail.step and tail_…"
            raise errors.CacheError.for_value(self.path, key, recorded, digest, store_metadata.RESTORE)
        for name, fault in basis.find_faults(tail_basis).items():
            raise errors.CacheError(self.place(name, 0, 0), fault, store_metadata.RESTORE)
        return tail_basis

    def _keys_of(self, tar: int) -> tuple[str, ...]:
        entry = self.extent.tars[tar]
        keys = tuple(self._objects.read("key", tar, 0)[: entry.nsamples].tolist())
        if hashing.keys_crc32(keys) != entry.keys_crc32:
            raise errors.CacheError(
                self.place("key", tar, 0), "keys differ from the recorded crc32", store_metadata.RESTORE
            )
        return keys

    def place(self, name: str, tar: int, group: int) -> Path:
        """Where the object of an array for a unit lies.

        Args:
            name: of the array.
            tar: its position in the extent.
            group: of aug seeds.
        """
        return self._objects.path(name, tar, group)

    def objects(self) -> Iterator[tuple[str, schema.UnitRecord]]:
        """Every object by its array's name and its unit's record."""
        for unit in self.units():
            for name in layout.unit_specs(self._specs, unit.group):
                yield name, unit


_GROW = "Grow it: add the tars or raise aug_seeds, then dvc repro cache"


def open(path: str | Path, *, incomplete: bool = False) -> Cache:  # noqa: A001 - zarr.open, Image.open: the field's word
    """Open a store and check that it is whole: attributes, array shapes, a record and a file for every unit.

    `path` may be a URL; an object is then fetched when its first row is read, and kept (`core.storage`).
    `incomplete` goes on where an object's file is missing; a read that needs it refuses.

    Raises:
        CacheError: not a store, another format, or something is missing; the message names what.
        StorageError: the place behind the URL cannot be reached.
    """
    folder = storage.open_folder(path, errors.CacheError)
    attributes = unit_records.read_attributes(folder)
    specs = layout.array_specs(attributes.recipe, attributes.extent.rows_per_tar)
    try:
        # Before anything is allocated or compared by these numbers: anyone may have written the attributes.
        layout.require_bounded(specs, attributes.extent.seeds_per_unit, folder)
    except errors.ConfigError as error:
        raise errors.CacheError.from_error(error) from error
    store_metadata.require_array_metadata(folder, specs, attributes.extent)
    cache = Cache(folder, attributes, unit_records.read_units(folder, attributes.extent))
    # Only whether each is there, by one listing; what it holds is compared when it is read first.
    for path_of_object in (cache.place(name, unit.tar, unit.group) for name, unit in cache.objects()):
        name = path_of_object.relative_to(folder.path).as_posix()
        if not incomplete and not folder.holds(name):
            raise errors.CacheError(f"{folder}/{name}", "is missing", store_metadata.RESTORE)
    return cache
