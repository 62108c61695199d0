"""Views as the teacher saw them, rendered while the samples of a tar stream by."""

from collections.abc import Iterable, Iterator

from pipeline.cache import schema
from pipeline.shards import decode, read
from pipeline.views import mix


class Views:
    """Some views of a tar. A view that is mixed waits for both of its samples, which are held encoded."""

    def __init__(self, recipe: schema.Recipe, tar: schema.Tar, asked: Iterable[tuple[int, int]]) -> None:
        """Ask for views.

        Args:
            recipe: policy and size.
            tar: whose.
            asked: row and aug seed of each view.
        """
        self._recipe = recipe
        self._tar = tar
        self._asked: dict[int, list[tuple[int, int, tuple[int, ...]]]] = {}
        self._held: dict[int, read.Sample] = {}
        self._needed: set[int] = set()
        for row, aug_seed in asked:
            other = mix.partner(recipe.policy, tar.nsamples, tar.sha256, aug_seed, row)
            rows = (row,) if other is None else (row, other)
            self._asked.setdefault(max(rows), []).append((row, aug_seed, rows))
            self._needed.update(rows)

    def see(self, sample: read.Sample) -> Iterator[tuple[int, int, mix.Pixels]]:
        """Row, aug seed and uint8 (3, size, size) of each view that this sample completes; samples come in row order.

        Raises:
            DataError: an image cannot be decoded.
        """
        if sample.row in self._needed:
            self._held[sample.row] = sample
        for row, aug_seed, rows in self._asked.get(sample.row, []):
            samples = [self._held[number] for number in rows]
            images = [decode.rgb(one.image, f"{self._tar.url}:{one.key}") for one in samples]
            keys = [one.key for one in samples]
            size = self._recipe.teacher.size
            yield row, aug_seed, mix.render(self._recipe.policy, images, keys, aug_seed, size)[0]
