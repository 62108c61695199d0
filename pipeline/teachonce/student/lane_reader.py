"""One lane at work, a WebDataset pipeline: its tars → samples joined with the teacher's rows → shuffled → drawn."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import webdataset

from teachonce.shards import index, sample_reader, small_images
from teachonce.student import lanes, row_source
from teachonce.views import draw, mixing

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class JoinedView:
    """One view with the teacher's row, but for its pixels."""

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
class DrawnView:
    """A view that is still to be rendered, into its place of a batch."""

    joined: JoinedView
    image_HWC: Pixels
    """The decoded image, uint8 (H, W, 3); shared by all views of it."""
    params: draw.ViewParams
    """One draw, rendered at all sizes."""


@dataclass(frozen=True, slots=True)
class _BufferedGroup:
    """A mix group in the shuffle buffer: still encoded, so that a buffer of thousands costs little memory."""

    samples: tuple[sample_reader.Sample, ...]
    rows: tuple[row_source.Rows, ...]
    """Of each aug seed of the block."""
    tar: str
    """Its name, for messages."""


@dataclass(frozen=True, slots=True)
class _TarPart:
    """What a lane reads of a tar."""

    segment: lanes.Segment
    is_wanted: npt.NDArray[np.bool_]
    """Of the segment's mix groups: those that are still to be given out."""
    start: int
    """Position of its first mix group in the order of streaming."""


class LaneReader:
    """Reads the lanes of one process."""

    def __init__(self, source: row_source.RowSource) -> None:
        """Read samples and rows of a source."""
        self._source = source
        self._shards = source.shards
        self._entries = source.shards.index.of_split("train")
        self._policy = source.policy
        self._images = small_images.SmallImages()

    def padding(self) -> JoinedView:
        """What stands in a place of a batch without a view, the same in every process."""
        return JoinedView("", 0, self._source.padding(), 0)

    def read(
        self, segments: tuple[lanes.Segment, ...], order: npt.NDArray[np.int64], block: int, start: int
    ) -> Iterator[list[DrawnView]]:
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
        pipeline = webdataset.DataPipeline(
            functools.partial(self._tar_parts, segments, is_wanted),
            functools.partial(self._join, block),
            functools.partial(_shuffle, order[start:]),
            functools.partial(self._draw, block),
        )
        return iter(pipeline)

    def _tar_parts(self, segments: tuple[lanes.Segment, ...], is_wanted: npt.NDArray[np.bool_]) -> Iterator[_TarPart]:
        start = 0
        for segment, following in zip(segments, [*segments[1:], None], strict=True):
            stop = start + segment.stop - segment.first
            # Tars of a URL are fetched beside the work: the next one arrives while this one is rendered.
            if following:
                self._shards.ahead(self._entries[following.tar])
            if is_wanted[start:stop].any():
                yield _TarPart(segment, is_wanted[start:stop], start)
            start = stop

    def _join(self, block: int, parts: Iterator[_TarPart]) -> Iterator[tuple[int, _BufferedGroup]]:
        """The wanted mix groups by position, each as soon as the last of its rows has streamed by."""
        for part in parts:
            entry = self._entries[part.segment.tar]
            # Pairs are drawn among all rows of the tar, not of the segment: two lanes that share a tar must agree on
            # who is whose partner, and with the stage that asked the teacher.
            mix_groups = mixing.pair_rows(self._policy, entry.nsamples, entry.sha256, block)
            wanted = np.flatnonzero(part.is_wanted).tolist()
            rows_by_position = {part.start + index: mix_groups[part.segment.first + index] for index in wanted}
            yield from self._join_tar(entry, rows_by_position, self._aug_seeds(block))

    def _join_tar(
        self, entry: index.Shard, rows_by_position: dict[int, tuple[int, ...]], aug_seeds: range
    ) -> Iterator[tuple[int, _BufferedGroup]]:
        # The rows of a pair lie anywhere in the tar. A mix group is complete with the later one, and until then the
        # earlier one waits outside the buffer, whose places are counted in whole mix groups.
        completed_by = {rows[-1]: position for position, rows in rows_by_position.items()}
        needed = {row for rows in rows_by_position.values() for row in rows}
        rows_by_seed = tuple(self._source.rows(entry, aug_seed) for aug_seed in aug_seeds)
        waiting: dict[int, sample_reader.Sample] = {}
        for sample in self._source.samples(entry, aug_seeds):
            if sample.row in needed:
                waiting[sample.row] = sample
            if sample.row in completed_by:
                position = completed_by[sample.row]
                samples = tuple(waiting.pop(row) for row in rows_by_position[position])
                yield position, _BufferedGroup(samples, rows_by_seed, entry.url)

    def _aug_seeds(self, block: int) -> range:
        return range(block * self._policy.repeats, (block + 1) * self._policy.repeats)

    def _draw(self, block: int, mix_groups: Iterator[_BufferedGroup]) -> Iterator[list[DrawnView]]:
        for mix_group in mix_groups:
            yield list(self._views(mix_group, block))

    def _views(self, mix_group: _BufferedGroup, block: int) -> Iterator[DrawnView]:
        policy = self._policy
        # The odd image of a tar has no partner and keeps all of itself, as the teacher saw it.
        is_paired = policy.mix is not None and len(mix_group.samples) == 2
        for sample in mix_group.samples:
            image_HWC = self._images.rgb_pixels(sample.image, f"{mix_group.tar}:{sample.key}")
            for aug_seed, rows in zip(self._aug_seeds(block), mix_group.rows, strict=True):
                share = mixing.UNMIXED
                if policy.mix and is_paired:
                    share = mixing.draw_params(policy.mix, sample.key, aug_seed)
                joined = JoinedView(sample.key, sample.label, rows, sample.row, share)
                yield DrawnView(joined, image_HWC, draw.view_params(policy, sample.key, aug_seed))


def _shuffle(
    order: npt.NDArray[np.int64], mix_groups: Iterator[tuple[int, _BufferedGroup]]
) -> Iterator[_BufferedGroup]:
    """The mix groups in the lane's order; WebDataset's own shuffle keeps a state that no position tells."""
    # The order never asks for a mix group before at most as many others have been streamed as the buffer has places: so
    # this holds no more than is configured, however long the lane is.
    buffer: dict[int, _BufferedGroup] = {}
    for position in order.tolist():
        while position not in buffer:
            streamed, mix_group = next(mix_groups)
            buffer[streamed] = mix_group
        yield buffer.pop(position)
