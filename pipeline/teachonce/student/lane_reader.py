"""One lane at work: stream its tars, join each view with the teacher's row, shuffle, render."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.shards import decode, sample_reader
from teachonce.student import lanes, row_source
from teachonce.views import draw, mixing, render

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class JoinedView:
    """One view with the teacher's row."""

    pixels: tuple[Pixels, ...]
    """uint8 (3, size, size) for each size, not yet mixed: one draw, rendered at all of them."""
    key: str
    """Of the sample; empty for padding."""
    label: int
    """Ground truth, or `shards.index.UNLABELLED`."""
    rows: row_source.Rows
    """The tar's rows under this aug seed; shared by all views of them, so that a batch copies a tar's rows at once."""
    row: int
    """Which of them is this view's."""
    mix_share: mixing.MixParams = mixing.UNMIXED
    """What it keeps of itself when it is mixed with its partner."""


@dataclass(frozen=True, slots=True)
class _BufferedGroup:
    """A mix group in the shuffle buffer: still encoded, so that a buffer of thousands costs little memory."""

    samples: tuple[sample_reader.Sample, ...]
    rows: tuple[row_source.Rows, ...]
    """Of each aug seed of the block."""
    tar: str
    """Its name, for messages."""


class LaneReader:
    """Reads the lanes of one process."""

    def __init__(self, source: row_source.RowSource, sizes: Sequence[int]) -> None:
        """Read from a source.

        Args:
            source: samples and rows.
            sizes: sides of the views in pixels.
        """
        self._source, self._sizes = source, sizes
        self._shards = source.shards
        self._entries = source.shards.index.of_split("train")
        self._policy = source.policy

    def padding(self) -> JoinedView:
        """What stands in a place of a batch without a view: zeros, the same in every process."""
        blank = tuple(np.zeros((3, size, size), np.uint8) for size in self._sizes)
        return JoinedView(blank, "", 0, self._source.padding(), 0)

    def read(
        self, segments: tuple[lanes.Segment, ...], order: npt.NDArray[np.int64], block: int, start: int
    ) -> Iterator[list[JoinedView]]:
        """The lane's mix groups from place `start` of its order on; tars that hold none of them are not read.

        Args:
            segments: mix groups of tars, in the order of streaming.
            order: from `lanes.shuffled_order`.
            block: of aug seeds.
            start: where to begin.

        Returns:
            For each mix group its views: those of the first image, by aug seed, then those of its partner.

        Raises:
            DataError: a tar is not the one the index names.
            CacheError: a block is damaged, or the cache has other keys than the index.
            ViewDriftError: a canary does not replay, unless drift is accepted.
        """
        is_wanted = np.zeros(len(order), dtype=bool)
        is_wanted[order[start:]] = True
        streamed = self._stream(segments, is_wanted, block)
        # The order never asks for a mix group before at most as many others have been streamed as the buffer has
        # places: so this holds no more than is configured, however long the lane is.
        buffer: dict[int, _BufferedGroup] = {}
        for place in order[start:]:
            while place not in buffer:
                position, mix_group = next(streamed)
                buffer[position] = mix_group
            yield self._render(buffer.pop(int(place)), block)

    def _stream(
        self, segments: tuple[lanes.Segment, ...], is_wanted: npt.NDArray[np.bool_], block: int
    ) -> Iterator[tuple[int, _BufferedGroup]]:
        """The wanted mix groups with their positions in the order of streaming."""
        offset = 0
        for segment, following in zip(segments, [*segments[1:], None], strict=True):
            count = segment.stop - segment.first
            # Tars of a URL are fetched beside the work: the next one arrives while this one is rendered.
            if following:
                self._shards.ahead(self._entries[following.tar])
            if (is_wanted_here := is_wanted[offset : offset + count]).any():
                for group_index, mix_group in self._tar(segment, is_wanted_here, block):
                    yield offset + group_index, mix_group
            offset += count

    def _tar(
        self, segment: lanes.Segment, is_wanted: npt.NDArray[np.bool_], block: int
    ) -> Iterator[tuple[int, _BufferedGroup]]:
        """The segment's wanted mix groups by number, each as soon as the last of its rows has streamed by."""
        entry = self._entries[segment.tar]
        # Pairs are drawn among all rows of the tar, not of the segment: two lanes that share a tar must agree on who is
        # whose partner, and with the stage that asked the teacher.
        mix_groups = mixing.pair_rows(self._policy, entry.nsamples, entry.sha256, block)[segment.first : segment.stop]
        # The rows of a pair lie anywhere in the tar. A mix group is complete with the later one, and until then the
        # earlier one waits outside the buffer, whose places are counted in whole mix groups.
        completed_by = {rows[-1]: group_index for group_index, rows in enumerate(mix_groups) if is_wanted[group_index]}
        needed = {row for group_index in completed_by.values() for row in mix_groups[group_index]}
        seeds = self._aug_seeds(block)
        rows_by_seed = tuple(self._source.rows(entry, aug_seed) for aug_seed in seeds)
        waiting: dict[int, sample_reader.Sample] = {}
        for sample in self._source.samples(entry, seeds):
            if sample.row in needed:
                waiting[sample.row] = sample
            if sample.row in completed_by:
                group_index = completed_by[sample.row]
                samples = tuple(waiting.pop(row) for row in mix_groups[group_index])
                yield group_index, _BufferedGroup(samples, rows_by_seed, entry.url)

    def _aug_seeds(self, block: int) -> range:
        return range(block * self._policy.repeats, (block + 1) * self._policy.repeats)

    def _render(self, mix_group: _BufferedGroup, block: int) -> list[JoinedView]:
        policy = self._policy
        # The odd image of a tar has no partner and keeps all of itself, as the teacher saw it.
        is_paired = policy.mix is not None and len(mix_group.samples) == 2
        views = []
        for sample in mix_group.samples:
            image = decode.rgb_pixels(sample.image, f"{mix_group.tar}:{sample.key}")
            for aug_seed, rows in zip(self._aug_seeds(block), mix_group.rows, strict=True):
                params = draw.view_params(policy, sample.key, aug_seed)
                pixels = tuple(render.to_pixels(image, params, size) for size in self._sizes)
                share = mixing.UNMIXED
                if policy.mix and is_paired:
                    share = mixing.draw_params(policy.mix, sample.key, aug_seed)
                views.append(JoinedView(pixels, sample.key, sample.label, rows, sample.row, share))
        return views
