"""Write units one by one, and assemble finished units into a store by linking.

A unit is written alone, as the objects of a store of (1 tar, one group of seeds); its objects have the same bytes
wherever they stand in a store, so that assembling writes metadata and links files, never a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teachonce.cache import finished_units
from teachonce.core import files
from teachonce.format import basis, codec, fidelity, layout, schema, zarr_arrays


@dataclass(frozen=True, slots=True)
class UnitRows:
    """Rows of one unit, packed. Shapes: N rows of the tar, S aug seeds of the group."""

    rows_S: Sequence[codec.Rows]
    """Packed rows by aug seed, S times N."""
    keys_N: Sequence[str]
    """Sample keys in row order."""
    canary_pixels: npt.NDArray[np.uint8]
    """uint8 (3, size, size): the view that is kept, to be rendered again and compared by whoever uses the store."""


def write_unit(
    folder: Path, recipe: schema.Recipe, extent: schema.Extent, unit_rows: UnitRows, record: schema.UnitRecord
) -> schema.UnitRecord:
    """Write a unit's objects and its record into `folder`, which appears only when whole.

    Args:
        folder: the unit's, in the scratch folder; must not exist.
        recipe: what a row means.
        extent: fixes the row capacity and the group size.
        unit_rows: rows, keys and canary of the unit.
        record: everything but `objects`, which is filled in here.

    Returns:
        The record with its objects.
    """
    specs = layout.unit_specs(layout.array_specs(recipe, extent.rows_per_tar), record.group)
    arrays_by_seed = [seed_rows.arrays() for seed_rows in unit_rows.rows_S]
    # Drafted beside its place and renamed: under the name that says what its bytes are, no crash leaves half a unit.
    with files.new_folder(folder) as draft:
        group = zarr_arrays.create_group(str(draft))
        for name, spec in specs.items():
            array = zarr_arrays.create_array(
                group, name, spec, tars=1, aug_seeds=len(arrays_by_seed), seeds_per_unit=len(arrays_by_seed)
            )
            # Rows behind the tar's last one stay at the fill value, which no valid row holds: a hole shows.
            if spec.rows_last:
                array[0, :, :, : len(unit_rows.keys_N)] = np.stack([arrays[name].T for arrays in arrays_by_seed])
            elif spec.per == "unit":
                array[0, :, : len(unit_rows.keys_N)] = np.stack([arrays[name] for arrays in arrays_by_seed])
            elif name == "key":
                array[0, : len(unit_rows.keys_N)] = np.array(unit_rows.keys_N, dtype=object)
            else:
                array[0] = unit_rows.canary_pixels
        return finished_units.write_record(draft, folder.name, specs, record)


def assemble(
    path: Path,
    recipe: schema.Recipe,
    extent: schema.Extent,
    units: Sequence[tuple[Path, schema.UnitRecord]],
    tail: basis.Basis | None = None,
) -> None:
    """Assemble finished units into a store, which replaces `path` in one rename.

    Args:
        path: the store's folder.
        recipe: what a row means.
        extent: which rows there are; all of its units must be among `units`.
        units: folder and record of each unit.
        tail: the basis of a transform tail.
    """
    specs = layout.array_specs(recipe, extent.rows_per_tar)
    # In the order of tars, then groups, whatever the order in which units were finished: equal runs, equal bytes.
    records = sorted((record for _, record in units), key=lambda record: (record.tar, record.group))
    attributes = schema.Attributes(
        format=recipe.format,
        recipe=recipe,
        extent=extent,
        fidelity=fidelity.distance_statistics(fidelity.sum_distances(record.fidelity for record in records)),
    )
    with files.new_folder(path) as draft:
        group = zarr_arrays.create_group(str(draft), {schema.ATTRIBUTE: attributes.model_dump(mode="json")})
        basis_arrays = tail.arrays() if tail else {}
        for name, spec in specs.items():
            array = zarr_arrays.create_array(
                group,
                name,
                spec,
                tars=len(extent.tars),
                aug_seeds=extent.aug_seeds,
                seeds_per_unit=extent.seeds_per_unit,
            )
            if name in basis_arrays:
                array[...] = basis_arrays[name]
        for folder, record in units:
            # A unit's objects lie at tar 0, group 0 of its own folder, and at their place in the store: the same file.
            for name, spec in layout.unit_specs(specs, record.group).items():
                source = folder / layout.object_path(name, spec, 0, 0)
                files.link_or_copy(source, draft / layout.object_path(name, spec, record.tar, record.group))
        dumped = [record.model_dump(mode="json", exclude_defaults=True) for record in records]
        files.write_json(draft / schema.UNITS, dumped)
