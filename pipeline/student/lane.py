"""One lane at work: stream its tars, join each row with its block of the cache, render, shuffle."""

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.base import errors
from pipeline.cache import codec, identity, layout
from pipeline.cache import read as cache_read
from pipeline.shards import decode, index, read
from pipeline.student import lanes
from pipeline.views import apply, draw

_LOG = logging.getLogger(__name__)
_RESTORE = "Restore it: dvc checkout, or dvc pull"
_UNUSED = "lse"
"""Gives the raw logits back; no loss needs it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One training sample with the teacher's answer to this very view."""

    view: npt.NDArray[np.uint8]
    """uint8 (3, size, size)."""
    label: int
    """Ground truth."""
    rows: dict[str, codec.Array]
    """The tar's rows: `logits` (N, C), or `class_id` (N, K) and `logp` (N, K)."""
    row: int
    """Which of them is this view's."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A sample in the shuffle buffer: still encoded, so that a buffer of thousands costs little memory."""

    sample: read.Sample
    rows: dict[str, codec.Array]
    where: str


class Joiner:
    """Shards joined with a cache by key: what the lanes of one process share."""

    def __init__(
        self, shards: index.Shards, cache: cache_read.Cache, *, size: int, accept: Collection[str] = ()
    ) -> None:
        self._shards = shards
        self._entries = shards.index.of_split("train")
        self._cache = cache
        self._size = size
        self._accept = accept

    def padding(self) -> Item:
        """What stands in a place of a batch without a sample: zeros, the same in every process."""
        recipe = self._cache.recipe
        specs = layout.arrays(recipe, self._cache.extent.rows_per_tar)
        rows: dict[str, codec.Array] = {
            name: np.zeros((1, *spec.row), spec.dtype)
            for name, spec in specs.items()
            if spec.per == "unit" and name != _UNUSED
        }
        return Item(np.zeros((3, self._size, self._size), np.uint8), 0, rows, 0)

    def items(
        self, segments: tuple[lanes.Segment, ...], order: npt.NDArray[np.int64], aug_seed: int, start: int
    ) -> Iterator[Item]:
        """The lane's samples from place `start` of its order on; tars that hold none of them are not read.

        Raises:
            DataError: a tar is not the one the index names, or a label is not one of its classes.
            CacheError: a block is damaged, or the cache has other keys than the index.
            ViewDriftError: a canary does not replay, unless drift is accepted.
        """
        wanted = np.zeros(len(order), dtype=bool)
        wanted[order[start:]] = True
        streamed = self._stream(segments, wanted, aug_seed)
        held: dict[int, _Held] = {}
        for place in order[start:]:
            while place not in held:
                position, sample = next(streamed)
                held[position] = sample
            yield self._render(held.pop(int(place)), aug_seed)
        # Lets the last tar run to its end, where its digest is compared.
        for _ in streamed:
            pass

    def _stream(
        self, segments: tuple[lanes.Segment, ...], wanted: npt.NDArray[np.bool_], aug_seed: int
    ) -> Iterator[tuple[int, _Held]]:
        offset = 0
        for segment, following in zip(segments, [*segments[1:], None], strict=True):
            count = segment.stop - segment.first
            if following:
                self._shards.ahead(self._entries[following.tar])
            if wanted[offset : offset + count].any():
                for sample, rows in self._tar(segment, aug_seed):
                    position = offset + sample.row - segment.first
                    if wanted[position]:
                        yield position, _Held(sample, rows, self._entries[segment.tar].url)
            offset += count

    def _tar(self, segment: lanes.Segment, aug_seed: int) -> Iterator[tuple[read.Sample, dict[str, codec.Array]]]:
        entry = self._entries[segment.tar]
        tar = self._cache.tar(entry.sha256)
        keys = self._keys(entry, tar)
        rows = self._cache.block(tar, aug_seed, lse=False).arrays()
        group = aug_seed // self._cache.extent.seeds_per_unit
        canary_row = self._cache.unit(tar, group).canary.row
        for own in read.verified(entry, self._shards.path(entry)):
            sample = replace(own, key=keys[own.row]) if "keys" in self._accept else own
            self._require_sample(sample, keys, entry)
            if sample.row == canary_row:
                self._replay(sample, tar, group, entry.url)
            if segment.first <= sample.row < segment.stop:
                yield sample, rows

    def _keys(self, entry: index.Shard, tar: int) -> tuple[str, ...]:
        recorded = self._cache.extent.tars[tar].keys_crc32
        if recorded != entry.keys_crc32 and "keys" not in self._accept:
            raise errors.CacheError(
                errors.refusal(
                    self._cache.path, f"keys of {entry.url}", f"those of the index, crc32 {entry.keys_crc32}", recorded,
                    "Shards and cache do not belong together: dvc repro cache",
                )
            )  # fmt: skip
        return self._cache.keys(tar)

    def _require_sample(self, sample: read.Sample, keys: tuple[str, ...], entry: index.Shard) -> None:
        # The digest of the tar is compared at its end; until then a wrong row must not reach a step.
        path = self._shards.path(entry)
        key = keys[sample.row] if sample.row < len(keys) else None
        if sample.key != key:
            raise errors.DataError(
                errors.refusal(path, f"key of row {sample.row}", f"{key!r}, as indexed", repr(sample.key), _RESTORE)
            )
        classes = len(self._shards.index.classes)
        if sample.label >= classes:
            raise errors.DataError(
                errors.refusal(
                    path, f"label of {sample.key!r}", f"below {classes}, the classes", sample.label, _RESTORE
                )
            )

    def _replay(self, sample: read.Sample, tar: int, group: int, url: str) -> None:
        image = decode.rgb(sample.image, f"{url}:{sample.key}")
        drift = identity.replay(self._cache, tar, group, image, sample.key)
        if drift is None:
            return
        message = identity.drift_message(self._cache, [drift], 1)
        if "view_drift" not in self._accept:
            raise errors.ViewDriftError(message)
        _LOG.warning("%s: %s", url, message)

    def _render(self, held: _Held, aug_seed: int) -> Item:
        sample = held.sample
        image = decode.rgb(sample.image, f"{held.where}:{sample.key}")
        view = apply.apply(image, draw.draw(self._cache.recipe.policy, sample.key, aug_seed), self._size)
        return Item(view, sample.label, held.rows, sample.row)
