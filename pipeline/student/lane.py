"""One lane at work: stream its tars, join each row with its blocks of the cache, render, shuffle."""

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
from pipeline.views import apply, draw, mix

_LOG = logging.getLogger(__name__)
_RESTORE = "Restore it: dvc checkout, or dvc pull"
_UNUSED = "lse"
"""Gives the raw logits back; no loss needs it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One view with the teacher's answer to it."""

    view: npt.NDArray[np.uint8]
    """uint8 (3, size, size), not yet mixed."""
    key: str
    """Of the sample; empty for padding."""
    label: int
    """Ground truth, or `shards.index.UNLABELLED`."""
    rows: dict[str, codec.Array]
    """The tar's rows under this aug seed: `logits` (N, C), or `class_id` (N, K) and `logp` (N, K)."""
    row: int
    """Which of them is this view's."""
    mixing: mix.Mixing = mix.UNMIXED
    """What it keeps of itself when it is mixed with its partner."""


@dataclass(frozen=True, slots=True)
class _Held:
    """An atom in the shuffle buffer: still encoded, so that a buffer of thousands costs little memory."""

    samples: tuple[read.Sample, ...]
    rows: tuple[dict[str, codec.Array], ...]
    """Of each aug seed of the block."""
    where: str


class Joiner:
    """Shards joined with a cache by key: what the lanes of one process share."""

    def __init__(
        self, shards: index.Shards, cache: cache_read.Cache, *, size: int, accept: Collection[str] = ()
    ) -> None:
        self._shards = shards
        self._entries = shards.index.of_split("train")
        self._cache = cache
        self._policy = cache.recipe.policy
        self._size = size
        self._accept = accept

    def padding(self) -> Item:
        """What stands in a place of a batch without a view: zeros, the same in every process."""
        recipe = self._cache.recipe
        specs = layout.arrays(recipe, self._cache.extent.rows_per_tar)
        rows: dict[str, codec.Array] = {
            name: np.zeros((1, *spec.row), spec.dtype)
            for name, spec in specs.items()
            if spec.per == "unit" and name != _UNUSED
        }
        return Item(np.zeros((3, self._size, self._size), np.uint8), "", 0, rows, 0)

    def items(
        self, segments: tuple[lanes.Segment, ...], order: npt.NDArray[np.int64], block: int, start: int
    ) -> Iterator[list[Item]]:
        """The lane's atoms from place `start` of its order on; tars that hold none of them are not read.

        Args:
            segments: atoms of tars, in the order of streaming.
            order: from `lanes.shuffle`.
            block: of aug seeds.
            start: where to begin.

        Returns:
            For each atom its views: those of the first image, by aug seed, then those of its partner.

        Raises:
            DataError: a tar is not the one the index names, or a label is not one of its classes.
            CacheError: a block is damaged, or the cache has other keys than the index.
            ViewDriftError: a canary does not replay, unless drift is accepted.
        """
        wanted = np.zeros(len(order), dtype=bool)
        wanted[order[start:]] = True
        streamed = self._stream(segments, wanted, block)
        held: dict[int, _Held] = {}
        for place in order[start:]:
            while place not in held:
                position, atom = next(streamed)
                held[position] = atom
            yield self._render(held.pop(int(place)), block)
        # Lets the last tar run to its end, where its digest is compared.
        for _ in streamed:
            pass

    def _stream(
        self, segments: tuple[lanes.Segment, ...], wanted: npt.NDArray[np.bool_], block: int
    ) -> Iterator[tuple[int, _Held]]:
        offset = 0
        for segment, following in zip(segments, [*segments[1:], None], strict=True):
            count = segment.stop - segment.first
            if following:
                self._shards.ahead(self._entries[following.tar])
            if (wanted_here := wanted[offset : offset + count]).any():
                for number, atom in self._tar(segment, wanted_here, block):
                    yield offset + number, atom
            offset += count

    def _tar(self, segment: lanes.Segment, wanted: npt.NDArray[np.bool_], block: int) -> Iterator[tuple[int, _Held]]:
        """The segment's wanted atoms by number, each as soon as the last of its rows has streamed by."""
        entry = self._entries[segment.tar]
        atoms = mix.atoms(self._policy, entry.nsamples, entry.sha256, block)[segment.first : segment.stop]
        completed = {rows[-1]: number for number, rows in enumerate(atoms) if wanted[number]}
        needed = {row for number in completed.values() for row in atoms[number]}
        tar = self._cache.tar(entry.sha256)
        rows = tuple(self._cache.block(tar, aug_seed, lse=False).arrays() for aug_seed in self._aug_seeds(block))
        waiting: dict[int, read.Sample] = {}
        for sample in self._samples(entry, tar, block):
            if sample.row in needed:
                waiting[sample.row] = sample
            if sample.row in completed:
                number = completed[sample.row]
                samples = tuple(waiting.pop(row) for row in atoms[number])
                yield number, _Held(samples, rows, entry.url)

    def _aug_seeds(self, block: int) -> range:
        return range(block * self._policy.repeats, (block + 1) * self._policy.repeats)

    def _samples(self, entry: index.Shard, tar: int, block: int) -> Iterator[read.Sample]:
        """The tar's samples, each proved to be the one that the cache's row answers."""
        keys = self._keys(entry, tar)
        groups = {aug_seed // self._cache.extent.seeds_per_unit for aug_seed in self._aug_seeds(block)}
        canaries = identity.Canaries(self._cache, tar, groups)
        for own in read.verified(entry, self._shards.path(entry)):
            sample = replace(own, key=keys[own.row]) if "keys" in self._accept else own
            self._require_sample(sample, keys, entry)
            for drift in canaries.see(sample):
                self._require_replay(drift, entry)
            yield sample

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

    def _require_replay(self, drift: identity.Drift | None, entry: index.Shard) -> None:
        if drift is None:
            return
        message = identity.drift_message(self._cache, [drift], 1)
        if "view_drift" not in self._accept:
            raise errors.ViewDriftError(message)
        _LOG.warning("%s: %s", entry.url, message)

    def _render(self, held: _Held, block: int) -> list[Item]:
        policy = self._policy
        found = []
        for sample in held.samples:
            image = decode.rgb(sample.image, f"{held.where}:{sample.key}")
            for aug_seed, rows in zip(self._aug_seeds(block), held.rows, strict=True):
                view = apply.apply(image, draw.draw(policy, sample.key, aug_seed), self._size)
                paired = policy.mix is not None and len(held.samples) == 2
                mixing = mix.mixing(policy.mix, sample.key, aug_seed) if policy.mix and paired else mix.UNMIXED
                found.append(Item(view, sample.key, sample.label, rows, sample.row, mixing))
        return found
