"""What a store says of itself, read and judged: its attributes, and the records of its units."""

from pathlib import Path

from teachonce.core import config, errors, storage
from teachonce.format import schema
from teachonce.store import store_metadata

_MAX_RECORD_BYTES = 1 << 17  # of a unit in units.json
_MAX_RECORDS_BYTES = 1 << 30


def read_attributes(folder: storage.Folder) -> schema.Attributes:
    """What a store says of itself in its group's attribute.

    Raises:
        CacheError: there is none, it is damaged, or of another format.
    """
    data = store_metadata.read_group_attributes(folder)
    version = data.get("format") if isinstance(data, dict) else None
    if version not in schema.FORMATS:
        cure = "Install the release that reads it, or make it again: dvc repro cache"
        versions = " or ".join(map(str, schema.FORMATS))
        raise errors.CacheError.for_value(folder.path, "format", versions, version, cure)
    return _parse(data, schema.Attributes, f"{folder.path}/{store_metadata.METADATA}")


def read_units(folder: storage.Folder, extent: schema.Extent) -> list[schema.UnitRecord]:
    """A record of each unit of the extent.

    Raises:
        CacheError: one is missing, there twice, damaged, or does not fit the extent.
    """
    where = folder.path / schema.UNITS
    tars, groups = len(extent.tars), extent.aug_seeds // extent.seeds_per_unit
    # A bound by the units that there should be: what one record may take is known, and nothing is read beyond it.
    data = store_metadata.read_document(
        folder, schema.UNITS, min(tars * groups * _MAX_RECORD_BYTES, _MAX_RECORDS_BYTES)
    )
    if not isinstance(data, list):
        raise errors.CacheError(where, "must hold a list of units", store_metadata.RESTORE)
    records = [_parse(unit, schema.UnitRecord, str(where)) for unit in data]
    places_in_extent = {(unit.tar, unit.group) for unit in records if unit.tar < tars and unit.group < groups}
    # Counted, not listed: the extent is untrusted, and may claim any number of units.
    if len(places_in_extent) != tars * groups or len(records) != len(places_in_extent):
        condition = f"the {tars * groups} of the extent"
        raise errors.CacheError.for_value(where, "units", condition, len(records), store_metadata.RESTORE)
    for unit in records:
        _require_in_extent(unit, extent, where)
    return records


def _require_in_extent(unit: schema.UnitRecord, extent: schema.Extent, where: Path) -> None:
    tar, unit_name = extent.tars[unit.tar], f"tar {unit.tar}, group {unit.group}"
    if unit.tar_sha256 not in ("", tar.sha256):
        # Its rows would be given out as those of the other tar.
        key, condition = f"tar_sha256 of {unit_name}", f"{tar.sha256}, as in the extent"
        raise errors.CacheError.for_value(where, key, condition, unit.tar_sha256, store_metadata.RESTORE)
    canary = unit.canary
    # A canary outside its unit would never be met, hence never replayed.
    if canary.row >= tar.nsamples or canary.aug_seed // extent.seeds_per_unit != unit.group:
        condition, value = f"one of its {tar.nsamples} rows and seeds", f"{canary.row}, {canary.aug_seed}"
        raise errors.CacheError.for_value(where, f"canary of {unit_name}", condition, value, store_metadata.RESTORE)


def _parse(data: object, model: type[config.M], where: str) -> config.M:
    try:
        return config.parse(data, model, where)
    except errors.ConfigError as error:
        raise errors.CacheError.from_error(error, store_metadata.RESTORE) from error
