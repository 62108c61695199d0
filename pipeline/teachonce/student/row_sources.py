"""Where the teacher's answers to a tar's views come from: a cache, or a teacher that is asked later."""

import logging
from collections.abc import Collection, Iterator
from typing import Protocol

import numpy as np

from teachonce.core import errors
from teachonce.format import codec, layout
from teachonce.shards import index, sample_reader
from teachonce.store import compatibility, store_reader
from teachonce.views.view_policy import Policy

_LOG = logging.getLogger(__name__)
_UNUSED = "lse"
"""Gives the raw logits back; no loss needs it."""

Rows = dict[str, codec.Array]
"""A tar's rows under an aug seed: `logits` (N, C), or `class_id` (N, K), `logp` (N, K) and `tail` (N, R)."""


class Answers(Protocol):
    """What lanes are joined with."""

    @property
    def policy(self) -> Policy:
        """What the answered views are."""

    def padding(self) -> Rows:
        """One row of zeros."""

    def rows(self, entry: index.Shard, aug_seed: int) -> Rows:
        """The tar's rows under an aug seed."""

    def samples(self, entry: index.Shard, aug_seeds: range) -> Iterator[sample_reader.Sample]:
        """The tar's samples, each proved to be the one that its row answers."""


class Unanswered:
    """No rows: a live teacher sees the batch."""

    def __init__(self, shards: index.Shards, policy: Policy) -> None:
        self._shards = shards
        self.policy = policy

    def padding(self) -> Rows:
        """Nothing."""
        return {}

    def rows(self, entry: index.Shard, aug_seed: int) -> Rows:  # noqa: ARG002 (the others' form)
        """Nothing."""
        return {}

    def samples(self, entry: index.Shard, aug_seeds: range) -> Iterator[sample_reader.Sample]:  # noqa: ARG002 (the others' form)
        """The tar's samples."""
        return sample_reader.verified_samples(entry, self._shards.path(entry))


class Cached:
    """Rows of a cache."""

    def __init__(self, shards: index.Shards, cache: store_reader.Cache, accept: Collection[str] = ()) -> None:
        self._shards = shards
        self._cache = cache
        self._accept = accept
        self.policy = cache.recipe.policy

    def padding(self) -> Rows:
        """One row of zeros."""
        specs = layout.array_specs(self._cache.recipe, self._cache.extent.rows_per_tar)
        return {
            name: np.zeros((1, *spec.row), spec.dtype)
            for name, spec in specs.items()
            if spec.per == "unit" and name != _UNUSED
        }

    def rows(self, entry: index.Shard, aug_seed: int) -> Rows:
        """The tar's rows under an aug seed.

        Raises:
            CacheError: the block is damaged.
        """
        return self._cache.block(self._cache.tar(entry.sha256), aug_seed, lse=False).arrays()

    def samples(self, entry: index.Shard, aug_seeds: range) -> Iterator[sample_reader.Sample]:
        """The tar's samples, each proved to be the one that the cache's row answers.

        Raises:
            DataError: the tar is not the one the index names.
            CacheError: the cache has other keys than the index.
            ViewDriftError: a canary does not replay, unless drift is accepted.
        """
        tar = self._cache.tar(entry.sha256)
        keys = self._keys(entry, tar)
        groups = sorted({aug_seed // self._cache.extent.seeds_per_unit for aug_seed in aug_seeds})
        own = keys if "keys" in self._accept else None
        with sample_reader.open_tar(entry, self._shards.path(entry), own) as samples:
            # Before the first of them reaches a step.
            for drift in compatibility.replay_canaries(self._cache, samples, tar, groups):
                self._require_replay(drift, entry)
            for sample in samples:
                self._require_key(sample, keys, entry)
                yield sample

    def _keys(self, entry: index.Shard, tar: int) -> tuple[str, ...]:
        recorded = self._cache.extent.tars[tar].keys_crc32
        if recorded != entry.keys_crc32 and "keys" not in self._accept:
            raise errors.CacheError.for_value(
                self._cache.path,
                f"keys of {entry.url}",
                f"those of the index, crc32 {entry.keys_crc32}",
                recorded,
                "Shards and cache do not belong together: dvc repro cache",
            )
        return self._cache.keys(tar)

    def _require_key(self, sample: sample_reader.Sample, keys: tuple[str, ...], entry: index.Shard) -> None:
        key = keys[sample.row] if sample.row < len(keys) else None
        if sample.key != key:
            where = self._shards.path(entry)
            raise errors.DataError.for_value(
                where, f"key of row {sample.row}", f"{key!r}, as indexed", repr(sample.key), index.RESTORE
            )

    def _require_replay(self, drift: compatibility.CanaryDrift | None, entry: index.Shard) -> None:
        if drift is None:
            return
        error = compatibility.drift_error(self._cache, [drift], 1)
        if "view_drift" not in self._accept:
            raise error
        _LOG.warning("%s: %s", entry.url, error)
