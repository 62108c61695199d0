"""Short names for what a cache holds: all of it, or the part that a student reads."""

import itertools

from teachonce.core import hashing
from teachonce.store import store_reader


def cache_digest(cache: store_reader.Cache) -> str:
    """BLAKE2b-128 of recipe, extent and the SHA-256 of every object, whatever the tars are called: 32 hex digits."""
    # Without names: a tar that is called otherwise in another index has the same rows.
    nameless = cache.extent.model_dump(mode="json", exclude={"tars": {"__all__": {"url"}}})
    objects = sorted([unit.tar, unit.group, sorted(unit.objects.items())] for unit in cache.units())
    return hashing.json_digest({"recipe": cache.recipe.model_dump(mode="json"), "extent": nameless, "objects": objects})


def rows_digest(cache: store_reader.Cache, tars: list[str], aug_seeds: int) -> str:
    """BLAKE2b-128 of recipe and the SHA-256 of the objects that hold some rows: the same where the cache has grown.

    Args:
        cache: the cache that holds the rows.
        tars: SHA-256 of each tar that is read.
        aug_seeds: how many, from the first one on.

    Raises:
        IdentityError: the cache has no rows of a tar.
    """
    groups = range(-(-aug_seeds // cache.extent.seeds_per_unit))
    units = (cache.unit(tar, group) for tar, group in itertools.product(map(cache.tar, tars), groups))
    # Of the objects that are read, not of the cache: one that has grown since is still the same to this student, whose
    # run then goes on.
    objects = [[unit.objects.get(name) for name in ("key", *cache.row_names)] for unit in units]
    return hashing.json_digest({"recipe": cache.recipe.model_dump(mode="json"), "tars": tars, "objects": objects})
