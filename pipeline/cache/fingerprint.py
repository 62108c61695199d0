"""One short name for a cache: what its rows mean and which there are."""

from pipeline.base import hashing
from pipeline.cache import schema


def of(recipe: schema.Recipe, extent: schema.Extent) -> str:
    """BLAKE2b-128 of recipe and extent, whatever the tars are called: 32 hex digits."""
    nameless = extent.model_dump(mode="json", exclude={"tars": {"__all__": {"url"}}})
    return hashing.digest({"recipe": recipe.model_dump(mode="json"), "extent": nameless})
