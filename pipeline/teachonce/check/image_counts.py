"""Counts of the images that were prepared, and settings that these do not allow."""

from dataclasses import dataclass
from pathlib import Path

from teachonce.cache import cache_config
from teachonce.core import errors
from teachonce.shards import index


@dataclass(frozen=True, slots=True)
class DatasetCounts:
    """Counts of an index of shards, as far as settings hang on them."""

    num_classes: int
    """Count of classes, the length of a row of logits."""
    train: int
    """Count of training images."""
    val: int
    """Count of validation images."""
    rows_per_tar: int
    """Rows that a tar may have at most, by the index."""
    most_rows: int
    """Rows of the longest tar."""
    train_tars: int
    """Count of tars of the training split."""


def read(shards: Path) -> DatasetCounts:
    """Count the images of an index; DataError as `index.read`."""
    shard_index = index.read(shards).index
    return DatasetCounts(
        num_classes=len(shard_index.classes),
        train=shard_index.nsamples("train"),
        val=shard_index.nsamples("val"),
        rows_per_tar=shard_index.rows_per_tar,
        most_rows=max((shard.nsamples for shard in shard_index.shardlist), default=0),
        train_tars=len(shard_index.of_split("train")),
    )


def cache_problems(cache: cache_config.CacheConfig, counts: DatasetCounts, where: Path) -> list[errors.ConfigError]:
    """What a cache's settings ask of tars that they do not have, a line each.

    Args:
        cache: how rows are kept.
        counts: of the images and their tars.
        where: file of the settings, for the message.
    """
    problems = []
    if cache.rows_per_tar is not None and cache.rows_per_tar < counts.most_rows:
        condition = f"at least {counts.most_rows:,}, the rows of the longest tar"
        cure = "Raise it, or leave it out"
        problems.append(errors.ConfigError.for_value(where, "rows_per_tar", condition, f"{cache.rows_per_tar:,}", cure))
    if cache.k != "all" and isinstance(cache.tail, cache_config.TransformConfig):
        fit_tars = cache.tail.fit_tars
        if fit_tars > counts.train_tars:
            condition = f"at most {counts.train_tars:,}, the tars of the training split"
            cure = "Lower it, or prepare shorter tars (rows_per_tar in configs/dataset)"
            problems.append(errors.ConfigError.for_value(where, "tail.fit_tars", condition, f"{fit_tars:,}", cure))
    return problems
