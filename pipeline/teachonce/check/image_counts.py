"""Configurations against the images, as soon as these are counted."""

from dataclasses import dataclass
from pathlib import Path

from teachonce.cache import cache_config
from teachonce.core import errors
from teachonce.shards import index


@dataclass(frozen=True, slots=True)
class DatasetCounts:
    """How many there are, and in which tars."""

    num_classes: int
    """Length of a row of logits."""
    train: int
    """Training images."""
    val: int
    """Validation images."""
    rows_per_tar: int
    """The most a tar may have."""
    most_rows: int
    """The most a tar has."""
    train_tars: int
    """Tars of the training split."""


def read(shards: Path) -> DatasetCounts:
    """Count the images of an index; DataError as `index.read`."""
    counted = index.read(shards).index
    return DatasetCounts(
        num_classes=len(counted.classes),
        train=counted.nsamples("train"),
        val=counted.nsamples("val"),
        rows_per_tar=counted.rows_per_tar,
        most_rows=max((shard.nsamples for shard in counted.shardlist), default=0),
        train_tars=len(counted.of_split("train")),
    )


def cache_problems(cache: cache_config.CacheConfig, images: DatasetCounts, where: Path) -> list[errors.ConfigError]:
    """What a cache's settings ask of tars that they do not have, a line each.

    Args:
        cache: how rows are kept.
        images: as they lie in their tars.
        where: file of the settings.
    """
    found = []
    if cache.rows_per_tar is not None and cache.rows_per_tar < images.most_rows:
        condition = f"at least {images.most_rows:,}, the rows of the longest tar"
        cure = "Raise it, or leave it out"
        found.append(errors.ConfigError.for_value(where, "rows_per_tar", condition, f"{cache.rows_per_tar:,}", cure))
    if cache.k != "all" and isinstance(cache.tail, cache_config.TransformConfig):
        fit_tars = cache.tail.fit_tars
        if fit_tars > images.train_tars:
            condition = f"at most {images.train_tars:,}, the tars of the training split"
            cure = "Lower it, or prepare shorter tars (rows_per_tar in configs/dataset)"
            found.append(errors.ConfigError.for_value(where, "tail.fit_tars", condition, f"{fit_tars:,}", cure))
    return found
