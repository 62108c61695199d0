"""Some training views as the teacher saw them, with its answers from the cache.

Shapes: B views, C classes, K kept classes.
"""

import base64
import io
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from teachonce.core import hashing
from teachonce.format import codec
from teachonce.shards import index, sample_keys, sample_reader
from teachonce.store import compatibility, replay, store_reader
from teachonce.views import mixing

_SPLIT = "train"
_IMAGES = 6
_VIEWS = 2
_TOP = 3
_NO_LABEL = "no label"


@dataclass(frozen=True, slots=True)
class LikelyClass:
    """One of the likeliest classes of a view, as the teacher answered."""

    name: str
    """Name of the class, as it is shown."""
    probability: float
    """Probability at tau 1, over all classes."""
    right: bool
    """Whether it is the label, or that of one of two mixed images."""


@dataclass(frozen=True, slots=True)
class ViewCard:
    """One view: its picture, where it comes from, and what it was taken for."""

    png: str
    """The view as a data URI."""
    key: str
    """Key of the sample in its tar."""
    aug_seed: int
    """Which of the image's views it is."""
    row: int
    """Position of the image in its tar."""
    labels: frozenset[int]
    """The label, or those of two mixed images; without what has none."""
    truth: str | None
    """Name of the label's class; of a mixed view, both with their weights; None where there is no label at all."""
    answers: tuple[LikelyClass, ...]
    """The likeliest classes, likeliest first."""

    @property
    def name(self) -> str:
        """The key as a person writes it."""
        return sample_keys.unescape(self.key)


@dataclass(frozen=True, slots=True)
class Gallery:
    """Views of some images of the first training tar."""

    tar: int
    """Position of the tar in the store."""
    names: tuple[str, ...]
    """Names of the classes, in label order, as they are shown."""
    cards: tuple[ViewCard, ...]
    """The views, those of one image side by side."""
    drift: str | None
    """Why these are not the pixels the teacher saw; None where they are."""


def collect_views(shards: index.Shards, cache: store_reader.Cache, names: Sequence[str]) -> Gallery:
    """Choose images by hash, render their first views at the teacher's size, look its answers up.

    Args:
        shards: the images.
        cache: the training store.
        names: of the classes, in label order, as they are to be shown.

    Raises:
        IdentityError: the store is not of these shards.
        DataError: the tar is not the one the index names.
    """
    # Students that go on in spite of these were refused without their consent; pictures need none.
    compatibility.require_compatible(
        cache, shards, _SPLIT, compatibility.Requirements(cache.recipe.policy, 1), ("classes", "tars", "keys")
    )
    entry = compatibility.restrict_to_cached(cache, shards, _SPLIT).index.of_split(_SPLIT)[0]
    tar = cache.tar(entry.sha256)
    keys = cache.keys(tar)
    # By hash: the first images of a tar may be of one class, and a drawn sample would change the page from run to run.
    chosen = hashing.permutation(entry.nsamples, "gallery")[:_IMAGES].tolist()
    views = [(row, aug_seed) for row in sorted(chosen) for aug_seed in range(min(_VIEWS, cache.extent.aug_seeds))]
    with sample_reader.open_tar(entry, shards.path(entry), keys) as samples:
        labels = [sample.label for sample in samples]
        # The pictures claim to be what the teacher saw; the canary proves that rendering still gives those pixels.
        [drift] = compatibility.replay_canaries(cache, samples, tar, [0])
        pixels = {view: replay.render_view(cache.recipe, cache.extent.tars[tar], samples, *view) for view in views}
    blocks = {aug_seed: cache.block(tar, aug_seed) for _, aug_seed in views}
    cards = []
    for row, aug_seed in views:
        parts = _parts(cache, tar, (row, aug_seed))
        right = frozenset(labels[part] for part in parts) - {index.UNLABELLED}
        cards.append(
            ViewCard(
                png=encode_png(pixels[row, aug_seed]),
                key=keys[row],
                aug_seed=aug_seed,
                row=row,
                labels=right,
                truth=_truth(parts, labels, names) if right else None,
                answers=_answers(blocks[aug_seed], row, right, names),
            )
        )
    error = str(compatibility.drift_error(cache, [drift], 1)) if drift else None
    return Gallery(tar, tuple(names), tuple(cards), error)


def _parts(cache: store_reader.Cache, tar: int, view: tuple[int, int]) -> dict[int, float]:
    """The rows whose images a view shows, with their weights; its own comes first."""
    row, aug_seed = view
    policy, tar_extent = cache.recipe.policy, cache.extent.tars[tar]
    partner = mixing.partner_row(policy, tar_extent.nsamples, tar_extent.sha256, aug_seed, row)
    if policy.mix is None or partner is None:
        return {row: 1.0}
    weight = mixing.draw_params(policy.mix, cache.keys(tar)[row], aug_seed).weight
    return {row: weight, partner: 1 - weight}


def _truth(parts: Mapping[int, float], labels: Sequence[int], classes: Sequence[str]) -> str:
    names = {row: _NO_LABEL if labels[row] == index.UNLABELLED else classes[labels[row]] for row in parts}
    if len(parts) == 1:
        return names[next(iter(parts))]
    return " + ".join(f"{weight:.2f} {names[row]}" for row, weight in parts.items())


def _answers(rows: codec.Rows, row: int, right: Container[int], classes: Sequence[str]) -> tuple[LikelyClass, ...]:
    return tuple(LikelyClass(classes[number], p, number in right) for number, p in top_classes(rows, row))


def top_classes(rows: codec.Rows, row: int) -> list[tuple[int, float]]:
    """The teacher's likeliest classes of one row with their probabilities at tau 1, likeliest first."""
    if rows.logits_BC is not None:
        logits_C = rows.logits_BC[row].astype(np.float64)
        # Less the largest one: exp of a large logit overflows.
        p_C = np.exp(logits_C - logits_C.max())
        order = np.argsort(-logits_C, kind="stable")[:_TOP]
        return [(int(number), float(p_C[number] / p_C.sum())) for number in order]
    if rows.class_id_BK is None or rows.logp_BK is None:
        raise TypeError("rows hold neither logits nor kept classes")
    p_K = np.exp(rows.logp_BK[row, :_TOP].astype(np.float64))
    return [(int(number), float(p)) for number, p in zip(rows.class_id_BK[row, :_TOP], p_K, strict=True)]


def encode_png(pixels: npt.NDArray[np.uint8]) -> str:
    """A picture of its own bytes: uint8 (3, H, W) as the data URI of a PNG, which loses nothing."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
