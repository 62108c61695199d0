"""Where a student's samples come from, each with the teacher's rows of its views: a cache, or a teacher asked later.

Shapes: N rows of a tar, C classes, K kept classes, R coefficients of a tail.
"""

import abc
import functools
import logging
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from teachonce.core import errors, hashing
from teachonce.format import codec, layout, row_expansion
from teachonce.shards import index, sample_reader
from teachonce.store import compatibility, fingerprint, joined_samples, store_reader
from teachonce.student import batching
from teachonce.views.view_policy import Policy

_LOG = logging.getLogger(__name__)
_UNUSED = "lse"
"""Gives the raw logits back; no loss needs it."""

Rows = dict[str, codec.Array]
"""A tar's rows under an aug seed: `logits` (N, C), or `class_id` (N, K), `logp` (N, K) and `tail` (N, R)."""


class RowSource(abc.ABC):
    """Training samples, each proved to be the one that its row answers, and those rows.

    What it reads is opened where it is first asked for. A loader process is sent the places alone and opens them by
    itself, at its own time; so it is sent the digest of what the run began with, too, and refuses anything else
    (`require_unchanged`). Without that, a cache that is replaced while loaders start would teach half a batch.
    """

    def __init__(self, shards: str | Path) -> None:
        """Name the images; nothing is opened yet."""
        self._shards_place = shards
        self._began_with: str | None = None

    def __getstate__(self) -> dict[str, object]:
        """Of what is sent to another process: no open file, and no network."""
        # What is opened is kept under names without an underscore (`cached_property`).
        sent = {name: value for name, value in vars(self).items() if name.startswith("_")}
        return {**sent, "_began_with": self.digest}

    def require_unchanged(self) -> None:
        """Refuse what is not what the run began with; in the process that began it, nothing is compared.

        Raises:
            DataError: shards or rows are others.
        """
        if self._began_with not in (None, self.digest):
            raise errors.DataError(self.location, "changed while the run began", "Run the same command again")

    @functools.cached_property
    def indexed(self) -> index.Shards:
        """All the images that the shards' index names."""
        return index.read(self._shards_place)

    @property
    def shards(self) -> index.Shards:
        """The images that are trained on."""
        return self.indexed

    @property
    def location(self) -> str:
        """Places that are read, for messages."""
        return str(self._shards_place)

    @functools.cached_property
    def digest(self) -> str:
        """Digest of all bytes that a run reads: its tars in order and, of a cache, the objects with their rows."""
        # Of the rows that are used, not of the whole cache: growing it begins no run anew.
        tars = [shard.sha256 for shard in self.shards.index.of_split("train")]
        return hashing.json_digest([tars, self._rows_digest(tars)])

    def _rows_digest(self, tars: list[str]) -> str | None:  # noqa: ARG002 (a cache's)
        return None

    @property
    def teacher_size(self) -> int | None:
        """Side of the views that a live teacher is asked; None where there are rows."""
        return None

    @property
    def tail(self) -> row_expansion.TailDecoder | None:
        """What the rows' coded tail stands on; None where they have none."""
        return None

    @property
    @abc.abstractmethod
    def policy(self) -> Policy:
        """The policy that the teacher's views were drawn by."""

    @property
    @abc.abstractmethod
    def aug_seeds(self) -> int:
        """A pass uses a block of these, in turn: whole blocks of the policy's repeats."""

    @property
    @abc.abstractmethod
    def identity(self) -> dict[str, object]:
        """Plain data that changes where its answers do: part of a run's name."""

    @abc.abstractmethod
    def padding(self) -> Rows:
        """One row of zeros of each array, for places of a batch without a view."""

    @abc.abstractmethod
    def rows(self, entry: index.Shard, aug_seed: int) -> Rows:
        """The tar's rows under an aug seed; none where a live teacher is asked."""

    @abc.abstractmethod
    def samples(self, entry: index.Shard, aug_seeds: range) -> Iterator[sample_reader.Sample]:
        """The tar's samples in row order, verified."""

    def answer(self, batch: batching.Batch) -> batching.Batch:
        """A batch as the loss wants it, on the device; a cache's has its rows."""
        return batch


class CachedRows(RowSource):
    """Rows of a cache, each beside the very view that the teacher saw."""

    def __init__(self, shards: str | Path, cache: str | Path, *, aug_seeds: int, accept: Collection[str] = ()) -> None:
        """Name the places; nothing is opened yet.

        Args:
            shards: folder of shards, or its URL.
            cache: store of the training split, or its URL.
            aug_seeds: how many are wanted; fewer are used where the cache has fewer.
            accept: refusals to go on with (`store.acceptance.Acceptable`).
        """
        super().__init__(shards)
        self._cache_place, self._wanted_seeds, self._accept = cache, aug_seeds, tuple(accept)

    @functools.cached_property
    def cache(self) -> store_reader.Cache:
        """The store; opened once in each process."""
        return store_reader.open(self._cache_place)

    @functools.cached_property
    def shards(self) -> index.Shards:
        """The images that are trained on; those without rows may be left out."""
        return (
            compatibility.restrict_to_cached(self.cache, self.indexed, "train")
            if "tars" in self._accept
            else self.indexed
        )

    @property
    def location(self) -> str:
        """Places that are read, for messages."""
        return f"{self._shards_place}, {self._cache_place}"

    def _rows_digest(self, tars: list[str]) -> str:
        return fingerprint.rows_digest(self.cache, tars, self.aug_seeds)

    @property
    def policy(self) -> Policy:
        """What the views are: the cache's, whatever is configured."""
        return self.cache.recipe.policy

    @property
    def aug_seeds(self) -> int:
        """A pass uses a block of these, in turn: whole blocks of the policy's repeats."""
        # Whole blocks alone: in a pass over half a block, an image would be shown fewer times than its repeats.
        return self._most_seeds // self.policy.repeats * self.policy.repeats

    @property
    def _most_seeds(self) -> int:
        # Fewer than wanted where `accept` says so; else the run has been refused.
        return min(self._wanted_seeds, self.cache.extent.aug_seeds)

    def require_block(self) -> None:
        """Refuse a cache that has no rows for even one pass.

        Raises:
            IdentityError: it has fewer aug seeds than its policy has repeats.
        """
        if not self.aug_seeds:
            condition = f"at least {self.policy.repeats}, the repeats of its policy"
            cure = "Ask for as many, or make it again: dvc repro cache"
            raise errors.IdentityError.for_value(self.cache.path, "aug_seeds", condition, self._most_seeds, cure)

    @property
    def identity(self) -> dict[str, object]:
        """Plain data that changes where its answers do: part of a run's name."""
        return {"read": self.digest}

    @functools.cached_property
    def tail(self) -> row_expansion.TailDecoder | None:
        """What the rows' coded tail stands on; None where they have none."""
        return row_expansion.tail_decoder(self.cache.recipe, self.cache.basis)

    def padding(self) -> Rows:
        """One row of zeros of each array, for places of a batch without a view."""
        specs = layout.array_specs(self.cache.recipe, self.cache.extent.rows_per_tar)
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
        return self.cache.block(self.cache.tar(entry.sha256), aug_seed, lse=False).arrays()

    def samples(self, entry: index.Shard, aug_seeds: range) -> Iterator[sample_reader.Sample]:
        """The tar's samples, each proved to be the one that the cache's row answers.

        Raises:
            DataError: the tar is not the one the index names.
            CacheError: the cache has other keys than the index, or than the tar.
            ViewDriftError: a canary does not replay, unless drift is accepted.
        """
        yield from joined_samples.join_samples(
            self.cache,
            self.indexed,
            entry,
            aug_seeds,
            accept=self._accept,
            go_on=lambda message: _LOG.warning("%s: %s", entry.url, message),
        )
