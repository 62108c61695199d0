"""Audit a store by itself, without its shards: files, attributes, and every object read to its last row."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from teachonce.audit import audit_finding
from teachonce.core import errors
from teachonce.format import codec, fidelity, layout, schema
from teachonce.store import compatibility, row_rules, store_reader

_RESTORE = "Fetch it again: dvc checkout, or dvc pull; or make it again: dvc repro cache"
_METADATA = "zarr.json"


def find_stray_files(cache: store_reader.Cache) -> Iterator[audit_finding.Finding]:
    """Files that the format does not name, and links to no file: what they hold is checked by nobody.

    A link to a file is what DVC makes where its cache is on another disk; what it leads to is checked as a file is.
    """
    specs = layout.array_specs(cache.recipe, cache.extent.rows_per_tar)
    expected = {Path(_METADATA), Path(schema.UNITS), *(Path(name, _METADATA) for name in specs)}
    expected |= {cache.place(name, unit.tar, unit.group).relative_to(cache.path) for name, unit in cache.objects()}
    expected |= {cache.place(name, 0, 0).relative_to(cache.path) for name, spec in specs.items() if spec.per == "store"}
    for folder, folders, names in os.walk(cache.path):
        for path in sorted(Path(folder) / name for name in [*folders, *names]):
            if path.is_symlink() and not path.is_file():
                what = f"must be no symbolic link but to a file. Got {path.readlink()}"
                yield audit_finding.Finding(file=str(path), what=what, cure=_RESTORE)
    # Of a store behind a URL, what is listed there, not what has been copied.
    for path in sorted(cache.path / name for name in cache.sizes() if Path(name) not in expected):
        yield audit_finding.Finding(file=str(path), what="is no file of the format (FORMAT.md)", cure="Remove it")


def check_unit_totals(cache: store_reader.Cache) -> Iterator[audit_finding.Finding]:
    """Check the store's fidelity against the sum of its units' records, and their counts against the extent."""
    # The tau that a student may use is judged by the store's fidelity: changed by hand, it could allow more than rows
    # hold.
    if fidelity.distance_statistics(fidelity.sum_distances(unit.fidelity for unit in cache.units())) != cache.fidelity:
        what = "fidelity must be the sum of the units'"
        yield audit_finding.Finding(file=str(cache.path / _METADATA), what=what, cure=_RESTORE)
    for unit in cache.units():
        views = cache.extent.tars[unit.tar].nsamples * cache.extent.seeds_per_unit
        if unit.views != views or unit.correct > views - unit.unlabelled:
            what = f"views of tar {unit.tar}, group {unit.group}, must be {views}. Got {unit.correct} of {unit.views}"
            what += f", {unit.unlabelled} without a label" if unit.unlabelled else ""
            yield audit_finding.Finding(file=str(cache.path / schema.UNITS), what=what, cure=_RESTORE)


def check_tar(cache: store_reader.Cache, position: int) -> Iterator[audit_finding.Finding]:
    """Check every object of a tar: its sha256, that it decodes, and each row against the rules of rows."""
    specs = layout.array_specs(cache.recipe, cache.extent.rows_per_tar)
    yield from _check_tar_objects(cache, position)
    for group in range(cache.extent.aug_seeds // cache.extent.seeds_per_unit):
        for name, error in _unit_errors(cache, position, group, specs).items():
            yield audit_finding.from_error(error, cache.place(name, position, group))


def _check_tar_objects(cache: store_reader.Cache, position: int) -> Iterator[audit_finding.Finding]:
    """Check the objects that a tar has once: its keys and the canary's pixels."""
    try:
        cache.keys(position)
    except errors.CacheError as error:
        yield audit_finding.from_error(error, cache.place("key", position, 0))
    try:
        pixels = cache.canary(position)
    except errors.CacheError as error:
        yield audit_finding.from_error(error, cache.place("canary", position, 0))
    else:
        # The store holds the canary's digest and its pixels: the digest is what consumers compare, the pixels tell by
        # how much a view has drifted, and must be those that were hashed.
        if compatibility.pixels_sha256(np.ascontiguousarray(pixels)) != cache.unit(position, 0).canary.sha256:
            what = "pixels must be those of the canary's sha256 in units.json"
            yield audit_finding.Finding(file=str(cache.place("canary", position, 0)), what=what, cure=_RESTORE)


def _unit_errors(
    cache: store_reader.Cache, position: int, group: int, specs: dict[str, layout.ArraySpec]
) -> dict[str, errors.CacheError]:
    """Errors of a unit's rows by array name: one for each object, however many of its rows are wrong."""
    error_by_array: dict[str, errors.CacheError] = {}
    arrays: dict[str, codec.Array] = {}
    for name in cache.row_names:
        try:
            arrays[name] = cache.stored(position, group, name)
        except errors.CacheError as error:
            error_by_array[name] = error
    # Seed by seed: the rules of rows are those of a block, as a student reads it.
    for seed in range(cache.extent.seeds_per_unit):
        block = {name: array[seed].T if specs[name].rows_last else array[seed] for name, array in arrays.items()}
        nsamples, num_classes = cache.extent.tars[position].nsamples, cache.recipe.teacher.num_classes
        for name, what in row_rules.block_violations(block, specs, nsamples, num_classes).items():
            error_by_array[name] = errors.CacheError(cache.path, what, _RESTORE)
    return error_by_array
