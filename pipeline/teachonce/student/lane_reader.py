"""One lane at work: stream its tars, join each row with its answers, render, shuffle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.shards import decode, index, sample_reader
from teachonce.student import lanes, row_sources
from teachonce.views import draw, render
from teachonce.views import mixing as mix

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Item:
    """One view with the teacher's answer to it."""

    views: tuple[Pixels, ...]
    """uint8 (3, size, size) for each size, not yet mixed: one draw, rendered at all of them."""
    key: str
    """Of the sample; empty for padding."""
    label: int
    """Ground truth, or `shards.index.UNLABELLED`."""
    rows: row_sources.Rows
    """The tar's rows under this aug seed."""
    row: int
    """Which of them is this view's."""
    mixing: mix.MixParams = mix.UNMIXED
    """What it keeps of itself when it is mixed with its partner."""


@dataclass(frozen=True, slots=True)
class _Held:
    """An atom in the shuffle buffer: still encoded, so that a buffer of thousands costs little memory."""

    samples: tuple[sample_reader.Sample, ...]
    rows: tuple[row_sources.Rows, ...]
    """Of each aug seed of the block."""
    where: str


class Joiner:
    """Shards joined with answers by key: what the lanes of one process share."""

    def __init__(self, shards: index.Shards, source: row_sources.Answers, sizes: Sequence[int]) -> None:
        self._shards = shards
        self._entries = shards.index.of_split("train")
        self._source = source
        self._policy = source.policy
        self._sizes = sizes

    def padding(self) -> Item:
        """What stands in a place of a batch without a view: zeros, the same in every process."""
        blank = tuple(np.zeros((3, size, size), np.uint8) for size in self._sizes)
        return Item(blank, "", 0, self._source.padding(), 0)

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
            DataError: a tar is not the one the index names.
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
        atoms = mix.pair_rows(self._policy, entry.nsamples, entry.sha256, block)[segment.first : segment.stop]
        completed = {rows[-1]: number for number, rows in enumerate(atoms) if wanted[number]}
        needed = {row for number in completed.values() for row in atoms[number]}
        seeds = self._aug_seeds(block)
        rows = tuple(self._source.rows(entry, aug_seed) for aug_seed in seeds)
        waiting: dict[int, sample_reader.Sample] = {}
        for sample in self._source.samples(entry, seeds):
            if sample.row in needed:
                waiting[sample.row] = sample
            if sample.row in completed:
                number = completed[sample.row]
                samples = tuple(waiting.pop(row) for row in atoms[number])
                yield number, _Held(samples, rows, entry.url)

    def _aug_seeds(self, block: int) -> range:
        return range(block * self._policy.repeats, (block + 1) * self._policy.repeats)

    def _render(self, held: _Held, block: int) -> list[Item]:
        policy = self._policy
        paired = policy.mix is not None and len(held.samples) == 2
        found = []
        for sample in held.samples:
            image = decode.rgb(sample.image, f"{held.where}:{sample.key}")
            for aug_seed, rows in zip(self._aug_seeds(block), held.rows, strict=True):
                drawn = draw.view_params(policy, sample.key, aug_seed)
                views = tuple(render.to_pixels(image, drawn, size) for size in self._sizes)
                mixing = mix.draw_params(policy.mix, sample.key, aug_seed) if policy.mix and paired else mix.UNMIXED
                found.append(Item(views, sample.key, sample.label, rows, sample.row, mixing))
        return found
