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
    """What a teacher said of one unit. Shapes: N rows of the tar, S aug seeds of the group, C classes."""

    rows_S: Sequence[codec.Rows]
    """Packed rows, by aug seed, N each."""
    keys_N: Sequence[str]
    """Keys in row order."""
    canary_pixels: npt.NDArray[np.uint8]
    """uint8 (3, size, size): the remembered view."""


def write_unit(
    folder: Path, recipe: schema.Recipe, extent: schema.Extent, answers: UnitRows, record: schema.UnitRecord
) -> schema.UnitRecord:
    """Write a unit's objects and its record into `folder`, which appears only when whole.

    Args:
        folder: where; must not exist.
        recipe: what a row means.
        extent: fixes the row capacity and the group size.
        answers: the rows.
        record: everything but `objects`, which is filled in here.

    Returns:
        The record with its objects.
    """
    specs = layout.unit_specs(layout.array_specs(recipe, extent.rows_per_tar), record.group)
    rows = [answer.arrays() for answer in answers.rows_S]
    with files.new_folder(folder) as draft:
        group = zarr_arrays.create_group(str(draft))
        for name, spec in specs.items():
            array = zarr_arrays.create_array(group, name, spec, tars=1, aug_seeds=len(rows), seeds_per_unit=len(rows))
            if spec.rows_last:
                array[0, :, :, : len(answers.keys_N)] = np.stack([part[name].T for part in rows])
            elif spec.per == "unit":
                array[0, :, : len(answers.keys_N)] = np.stack([part[name] for part in rows])
            elif name == "key":
                array[0, : len(answers.keys_N)] = np.array(answers.keys_N, dtype=object)
            else:
                array[0] = answers.canary_pixels
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
        extent: which rows there are; every unit of it must be given.
        units: folder and record of each unit.
        tail: the basis of a transform tail.
    """
    specs = layout.array_specs(recipe, extent.rows_per_tar)
    records = sorted((record for _, record in units), key=lambda record: (record.tar, record.group))
    attributes = schema.Attributes(
        format=recipe.format,
        recipe=recipe,
        extent=extent,
        fidelity=fidelity.distance_statistics(fidelity.sum_distances(record.fidelity for record in records)),
    )
    with files.new_folder(path) as draft:
        group = zarr_arrays.create_group(str(draft), {schema.ATTRIBUTE: attributes.model_dump(mode="json")})
        values = tail.arrays() if tail else {}
        for name, spec in specs.items():
            array = zarr_arrays.create_array(
                group,
                name,
                spec,
                tars=len(extent.tars),
                aug_seeds=extent.aug_seeds,
                seeds_per_unit=extent.seeds_per_unit,
            )
            if name in values:
                array[...] = values[name]
        for folder, record in units:
            for name, spec in layout.unit_specs(specs, record.group).items():
                source = folder / layout.object_path(name, spec, 0, 0)
                files.link_or_copy(source, draft / layout.object_path(name, spec, record.tar, record.group))
        dumped = [record.model_dump(mode="json", exclude_defaults=True) for record in records]
        files.write_json(draft / schema.UNITS, dumped)
