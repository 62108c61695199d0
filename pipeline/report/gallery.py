"""Some training views as the teacher saw them, with its answers from the cache.

Shapes: B views, C classes, K kept classes.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.base import hashing
from pipeline.cache import codec, identity
from pipeline.cache import read as cache_read
from pipeline.shards import decode, index, read

_SPLIT = "train"
_IMAGES = 6
_VIEWS = 2
_TOP = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """One class the teacher holds likely."""

    name: str
    """Class name."""
    probability: float
    """At tau 1."""
    right: bool
    """Whether it is the label."""


@dataclass(frozen=True, slots=True)
class Card:
    """One view."""

    png: str
    """The view as a data URI."""
    key: str
    """Sample key."""
    aug_seed: int
    """Which of the image's views."""
    truth: str
    """Name of the label's class."""
    answers: tuple[Answer, ...]
    """The likeliest classes, likeliest first."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Views of some images of the first training tar."""

    cards: tuple[Card, ...]
    """Views of one image stand together."""
    drift: str | None
    """Why these are not the pixels the teacher saw; None where they are."""


def gallery(shards: index.Shards, cache: cache_read.Cache) -> Gallery:
    """Choose images by hash, render their first views at the teacher's size, look its answers up.

    Raises:
        IdentityError: the store is not of these shards.
        DataError: the tar is not the one the index names.
    """
    # Students that go on in spite of these were refused without their consent; pictures need none.
    identity.require(cache, shards, _SPLIT, identity.Ask(cache.recipe.policy, 1), ("classes", "tars", "keys"))
    entry = identity.held(cache, shards, _SPLIT).index.of_split(_SPLIT)[0]
    tar = cache.tar(entry.sha256)
    keys = cache.keys(tar)
    chosen = set(hashing.permutation(entry.nsamples, "gallery")[:_IMAGES].tolist())
    canary_row = cache.unit(tar, 0).canary.row
    samples: list[tuple[read.Sample, Image.Image]] = []
    drift = None
    for own in read.verified(entry, shards.path(entry)):
        sample = replace(own, key=keys[own.row])
        if sample.row == canary_row:
            drift = identity.replay(cache, tar, 0, _image(sample, entry), sample.key)
        if sample.row in chosen:
            samples.append((sample, _image(sample, entry)))
    blocks = [cache.block(tar, aug_seed) for aug_seed in range(min(_VIEWS, cache.extent.aug_seeds))]
    cards = tuple(
        _card(
            sample,
            identity.render(cache.recipe, image, sample.key, aug_seed),
            aug_seed,
            rows,
            shards.index.classes,
        )
        for sample, image in samples
        for aug_seed, rows in enumerate(blocks)
    )
    return Gallery(cards, None if drift is None else identity.drift_message(cache, [drift], 1))


def top(rows: codec.Rows, row: int) -> list[tuple[int, float]]:
    """The teacher's likeliest classes of one row with their probabilities at tau 1, likeliest first."""
    if rows.logits_BC is not None:
        logits_C = rows.logits_BC[row].astype(np.float64)
        p_C = np.exp(logits_C - logits_C.max())
        order = np.argsort(-logits_C, kind="stable")[:_TOP]
        return [(int(number), float(p_C[number] / p_C.sum())) for number in order]
    if rows.class_id_BK is None or rows.logp_BK is None:
        raise TypeError("rows hold neither logits nor kept classes")
    p_K = np.exp(rows.logp_BK[row, :_TOP].astype(np.float64))
    return [(int(number), float(p)) for number, p in zip(rows.class_id_BK[row, :_TOP], p_K, strict=True)]


def _card(
    sample: read.Sample, pixels: npt.NDArray[np.uint8], aug_seed: int, rows: codec.Rows, classes: Sequence[str]
) -> Card:
    return Card(
        png=_data_uri(pixels),
        key=sample.key,
        aug_seed=aug_seed,
        truth=classes[sample.label],
        answers=tuple(Answer(classes[number], p, number == sample.label) for number, p in top(rows, sample.row)),
    )


def _data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _image(sample: read.Sample, entry: index.Shard) -> Image.Image:
    return decode.rgb(sample.image, f"{entry.url}:{sample.key}")
