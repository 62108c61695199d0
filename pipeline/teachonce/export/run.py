"""Hand over a student: a folder that timm, a hub and ONNX Runtime read, with a card that says what it is."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teachonce.base import errors, files, outputs
from teachonce.cache import identity
from teachonce.cache import read as cache_read
from teachonce.evaluate import feed
from teachonce.export import card, graph, hub, source
from teachonce.shards import index
from teachonce.student import config, model, trained

IMAGES = 32
"""Validation images that the graph is checked on."""
_KIND = outputs.Kind(
    "an earlier export",
    card.NAME,
    b"teachonce",
    re.compile("|".join(map(re.escape, (model.EMA, hub.NAME, graph.NAME)))),
)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where an export reads and writes."""

    weights: Path
    """The student's folder."""
    shards: str | Path
    """Folder of shards, or its URL."""
    cache: str | Path
    """Store of the validation split, or its URL."""
    metrics: Path
    """JSON of the student's evaluation."""
    out: Path
    """Folder to hand over."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What is said of a finished export."""

    images: int
    """On how many the graph was checked."""
    difference: float
    """Its largest difference from torch's logits."""


def export(name: str, paths: Paths) -> Handed:
    """Write the folder, whole or not at all.

    Args:
        name: of the student, the title of its card.
        paths: where.

    Raises:
        ConfigError: a library is missing, or the name or the folder to write is refused.
        DataError: record, weights and metrics are not those of one student.
        IdentityError: shards, store and student do not belong together.
        NumericsError: the graph does not answer as torch does.
    """
    graph.require()
    _require_named(name)
    out = outputs.Output(paths.out, _KIND, (paths.weights, paths.shards, paths.cache, paths.metrics))
    out.require_replaceable()
    student = trained.read(paths.weights)
    record = student.record
    shards, cache = index.read(paths.shards), cache_read.open(paths.cache)
    source.require_teacher(cache, record)
    accept = record.student.accept
    identity.require(cache, shards, feed.SPLIT, identity.Ask(cache.recipe.policy, 1), accept)
    held = identity.held(cache, shards, feed.SPLIT)
    evaluation = source.evaluation(paths.metrics, record, held.index.nsamples(feed.SPLIT))
    pixels = _some(feed.Feed(feed.Source(held, cache, record.recipe.size, accept), IMAGES))
    classes = cache.recipe.teacher.num_classes
    network = model.load(student.weights, record.recipe, record.student, classes, where=paths.weights)
    with out.draft() as draft:
        # Not linked, nor read again: what is handed over can be edited, and is what was verified.
        files.write_bytes(draft / model.EMA, student.weights)
        files.write_json(draft / hub.NAME, hub.config(record, network, shards.index.classes, cache.recipe.policy))
        graph.write(draft / graph.NAME, network, record.recipe)
        handed = Handed(len(pixels), graph.compare(draft / graph.NAME, network, record.recipe, pixels))
        content = card.Content(
            name=name, record=record, evaluation=evaluation, shards=shards.index, views=cache.recipe.policy,
            images=handed.images, difference=handed.difference,
        )  # fmt: skip
        files.write_bytes(draft / card.NAME, card.text(content).encode())
    return handed


def _require_named(name: str) -> None:
    if not config.NAME.fullmatch(name):
        raise errors.ConfigError(
            errors.refusal("export", "student", "named with letters, digits, _ and -", name, "Rename it")
        )


def _some(stream: feed.Feed) -> npt.NDArray[np.uint8]:
    """The first validation images as the student was measured on them: uint8 (B, 3, size, size)."""
    parts, count = [], 0
    for batch in stream.batches():
        parts.append(batch.pixels)
        count += len(batch.pixels)
        if count >= IMAGES:
            break
    return np.concatenate(parts)[:IMAGES]
