"""Pictures of the validation images on which a student was surest and wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import errors
from teachonce.evaluate import evaluation_record, predictions
from teachonce.report import gallery
from teachonce.shards import index, sample_keys, sample_reader
from teachonce.store import replay, store_reader

_SPLIT, _AUG_SEED = "val", 0


@dataclass(frozen=True, slots=True)
class Mistake:
    """One image with what was answered."""

    png: str
    """The view as a data URI, at the teacher's size."""
    name: str
    """The key as a person writes it."""
    truth: str | None
    """Name of the label's class; None without a label."""
    answer: str
    """What the student took it for."""
    probability: float
    """How likely the student held that."""
    teacher: gallery.LikelyClass
    """What the teacher takes it for."""


@dataclass(frozen=True, slots=True)
class Validation:
    """The validation images, what they are and what was answered."""

    shards: index.Shards
    """The images."""
    cache: store_reader.Cache
    """The teacher's answers to them."""
    names: Sequence[str]
    """Names of the classes to show, in label order."""


def picture_mistakes(
    validation: Validation,
    record: Path,
    mistakes: Sequence[evaluation_record.SureError],
    answers: Mapping[str, predictions.ClassPredictions],
) -> tuple[Mistake, ...]:
    """Pictures of the images that a student's record names, in its order.

    Args:
        validation: the images and the teacher's answers.
        record: file that names them, for the message.
        mistakes: what it names.
        answers: predictions by student, all on these images.

    Raises:
        DataError: the record names an image or a class that is not there; a tar is not the one of the index.
    """
    arrays = next(iter(answers.values()))
    limits = {"row": len(arrays["label"]), "answer": len(validation.names)}
    for mistake in mistakes:
        for field, limit in limits.items():
            if getattr(mistake, field) >= limit:
                condition, cure = f"below {limit}", "Evaluate it again: dvc repro evaluate"
                key = f"surest_errors.{field}"
                raise errors.DataError.for_value(record, key, condition, getattr(mistake, field), cure)
    pictures = _pictures(validation, [mistake.row for mistake in mistakes])
    return tuple(
        Mistake(
            png=png,
            name=sample_keys.unescape(key),
            truth=_class_name(int(arrays["label"][mistake.row]), validation.names),
            answer=validation.names[mistake.answer],
            probability=mistake.probability,
            teacher=teacher,
        )
        for mistake in mistakes
        for png, key, teacher in [pictures[mistake.row]]
    )


def _class_name(label: int, names: Sequence[str]) -> str | None:
    return None if label == index.UNLABELLED else names[label]


def _pictures(validation: Validation, rows: Sequence[int]) -> dict[int, tuple[str, str, gallery.LikelyClass]]:
    """By row of the split: the picture, its key and the teacher's answer; each tar is opened once."""
    cache, first_row = validation.cache, 0
    pictures = {}
    for entry in validation.shards.index.of_split(_SPLIT):
        shard_rows = [row for row in rows if first_row <= row < first_row + entry.nsamples]
        if shard_rows:
            tar = cache.tar(entry.sha256)
            block, keys = cache.block(tar, _AUG_SEED), cache.keys(tar)
            with sample_reader.open_tar(entry, validation.shards.path(entry), keys) as samples:
                for row in shard_rows:
                    place = row - first_row
                    pixels = replay.render_view(cache.recipe, cache.extent.tars[tar], samples, place, _AUG_SEED)
                    number, p = gallery.top_classes(block, place)[0]
                    teacher = gallery.LikelyClass(validation.names[number], p, right=False)
                    pictures[row] = gallery.encode_png(pixels), keys[place], teacher
        first_row += entry.nsamples
    return pictures
