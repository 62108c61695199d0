"""A store's objects, each compared with its recorded sha256 before anything of it is decoded."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from teachonce.core import errors, files, hashing, storage
from teachonce.format import layout, schema
from teachonce.store import object_decoder, store_metadata


class VerifiedObjects:
    """The objects of a store by array, tar and group; which of them were compared, and which rows were judged since."""

    def __init__(
        self,
        folder: storage.Folder,
        specs: dict[str, layout.ArraySpec],
        seeds_per_unit: int,
        units: Mapping[tuple[int, int], schema.UnitRecord],
    ) -> None:
        """Begin with nothing compared and nothing judged.

        Args:
            folder: of the store.
            specs: of its arrays, by name.
            seeds_per_unit: aug seeds of an object.
            units: their records by tar and group, which have the digests.
        """
        self._folder = folder
        self._specs = specs
        self._seeds_per_unit = seeds_per_unit
        self._units = units
        self._stamps: dict[tuple[str, int, int], tuple[int, ...] | None] = {}
        self._judged_seeds: dict[tuple[int, int], int] = {}  # a bit for each seed of a unit

    def path(self, name: str, tar: int, group: int) -> Path:
        """Where the object of an array for a unit lies.

        Args:
            name: of the array.
            tar: position of the unit's tar.
            group: its group of aug seeds; 0 for an array without seeds.
        """
        return self._folder.path / layout.object_path(name, self._specs[name], tar, group)

    def read(self, name: str, tar: int, group: int, seeds: Sequence[int] = ()) -> npt.NDArray[np.generic]:
        """Blocks of an object, as `object_decoder.read` gives them.

        Args:
            name: of the array.
            tar: its position in the extent.
            group: of aug seeds.
            seeds: which ones, counted within the unit.

        Raises:
            CacheError: it is missing, has another sha256, or cannot be decoded.
        """
        path = self.path(name, tar, group)
        try:
            with self._open(path, name, tar, group) as stream:
                return object_decoder.read(stream, self._specs[name], self._seeds_per_unit, seeds)
        except FileNotFoundError as error:
            raise errors.CacheError(path, f"is missing ({error.strerror})", store_metadata.RESTORE) from error
        except (OSError, ValueError, RuntimeError) as error:
            raise errors.CacheError(
                path, f"cannot be decoded ({errors.single_line(error)})", store_metadata.RESTORE
            ) from error

    def is_judged(self, tar: int, group: int, seed: int) -> bool:
        """Whether a seed's rows were judged, and no object of their unit was compared anew since.

        Args:
            tar: position of the unit's tar.
            group: its group of aug seeds.
            seed: counted within the unit.
        """
        return bool(self._judged_seeds.get((tar, group), 0) >> seed & 1)

    def mark_judged(self, tar: int, group: int, seed: int) -> None:
        """Remember that a seed's rows were judged.

        Args:
            tar: position of the unit's tar.
            group: its group of aug seeds.
            seed: counted within the unit.
        """
        self._judged_seeds[tar, group] = self._judged_seeds.get((tar, group), 0) | 1 << seed

    def _open(self, path: Path, name: str, tar: int, group: int) -> BinaryIO:
        """An object whose sha256 was compared: the very bytes that are decoded, or a file unchanged since."""
        spec, place = self._specs[name], (name, tar, group)
        most_bytes = layout.max_object_bytes(spec, self._seeds_per_unit)
        # The store's own arrays have their digest in the recipe.
        digest = "" if spec.per == "store" else self._units[tar, group].objects.get(name)
        if place not in self._stamps:
            self._folder.file(path.relative_to(self._folder.path).as_posix(), digest or None, most_bytes)
        # Without a buffer: blocks lie apart, and a buffer would read between them.
        stream = files.open_regular(path, buffering=0)
        # Hashed once, then known by device, inode, size and times of the open file: an epoch reads one block of each
        # object, and would otherwise read all of it for the digest. A name alone pins nothing.
        stamp = files.version_stamp(stream)
        if stamp is not None and self._stamps.get(place) == stamp:
            return stream
        with stream:
            data = files.read_all(stream, most_bytes)
        # Zarr's crc32c finds a damaged chunk; only the recorded sha256 finds one that was swapped for another.
        if digest != "" and (present := hashing.sha256(data)) != digest:
            raise errors.CacheError(
                path, f"sha256 must be as recorded, {digest}. Got {present}", store_metadata.RESTORE
            )
        # The stamp is older than the bytes: a change between the two leaves a file with another stamp.
        self._stamps[place] = stamp
        self._judged_seeds.pop((tar, group), None)
        # The hashed bytes themselves, not the file again, which may have changed by now.
        return io.BytesIO(data)
