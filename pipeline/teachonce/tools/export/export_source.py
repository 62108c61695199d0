"""What is handed over: a student's weights with their record and their metrics, of one student, or it is refused."""

from collections.abc import Iterator
from pathlib import Path

from teachonce.core import config, errors, files, spelling
from teachonce.evaluate import evaluation_record, validation_batches
from teachonce.shards import decode
from teachonce.store import compatibility, joined_samples, store_reader
from teachonce.student import student_record
from teachonce.tools.export import onnx_graph
from teachonce.views import draw, render

_EVALUATE = "Evaluate it again: dvc repro evaluate"
_MAX_BYTES = 1 << 24
"""Size above which a file of metrics is not read."""


def read_evaluation(path: Path, record: student_record.StudentRecord, images: int) -> evaluation_record.Evaluation:
    """The metrics of a student, proved to be of these weights and of this count of images.

    Args:
        path: JSON that the stage `evaluate` wrote.
        record: of the student that is handed over.
        images: validation images of the shards that are named.

    Raises:
        DataError: the file is missing or unreadable, or tells of another student or of other images.
    """
    evaluation = _parse(path)
    knobs = record.student.model_dump(mode="json", include={"model", "kind", "alpha", "tau", "seed"})
    # The digest of the weights proves the student. What stands before it tells in plain words what is another, and the
    # count of images is that of the shards.
    expected: dict[str, object] = {
        "student": evaluation_record.Knobs(**knobs, token=record.student.has_token),
        "architecture": record.architecture,
        "classes": record.cache.teacher.num_classes,
        "images": images,
        "weights_sha256": record.weights_sha256,
    }
    for name, value in expected.items():
        if getattr(evaluation, name) != value:
            condition = f"that of the student and the shards, {value}"
            raise errors.DataError.for_value(path, name, condition, getattr(evaluation, name), _EVALUATE)
    return evaluation


def require_folder(weights: Path) -> None:
    """Refuse a student that is not there, with the name of the one that may be meant.

    Raises:
        DataError: there is no such folder.
    """
    if weights.is_dir():
        return
    others = (folder.name for folder in weights.parent.iterdir()) if weights.parent.is_dir() else ()
    near = spelling.did_you_mean(weights.name, others)
    cure = f"Train it: dvc repro 'train@{weights.name}'; or restore it: dvc checkout{near and f'.{near}'}"
    raise errors.DataError(weights, "is missing", cure)


def require_teacher(cache: store_reader.Cache, record: student_record.StudentRecord) -> None:
    """Refuse a store of the validation split that another teacher answered.

    Raises:
        IdentityError: the teacher is not the one that taught the student.
    """
    student_teacher, cache_teacher = record.cache.teacher, cache.recipe.teacher
    if student_teacher != cache_teacher:
        condition, cure = (
            f"the student's, {student_teacher.weights_sha256}",
            "Name the store beside the one it was trained from",
        )
        raise errors.IdentityError.for_value(cache.path, "teacher", condition, cache_teacher.weights_sha256, cure)


def checked_images(data: validation_batches.EvaluationData) -> Iterator[onnx_graph.CheckedImage]:
    """The validation images in row order, each with the view that the student was measured on.

    Raises:
        DataError: a tar is not the one the index names.
        CacheError: the cache has other keys than the index, or than the tar.
        ViewDriftError: a canary does not replay, unless drift is accepted.
    """
    policy = data.cache.recipe.policy
    for entry in data.shards.index.of_split(validation_batches.SPLIT):
        samples = joined_samples.join_samples(
            data.cache,
            data.shards,
            entry,
            [0],
            accept=data.accept,
            go_on=_log_accepted,
        )
        for sample in samples:
            image = decode.rgb_pixels(sample.image, f"{entry.url}:{sample.key}")
            view = render.to_pixels(image, draw.view_params(policy, sample.key, 0), data.size)
            yield onnx_graph.CheckedImage(image, view)


def _log_accepted(message: str) -> None:
    compatibility.log_accepted([message])


def _parse(path: Path) -> evaluation_record.Evaluation:
    try:
        data = files.read_json(path, _MAX_BYTES)
        return config.parse(data, evaluation_record.Evaluation, str(path))
    except (OSError, ValueError) as error:
        raise errors.DataError(path, f"cannot be read ({error})", _EVALUATE) from error
    except errors.ConfigError as error:
        raise errors.DataError.from_error(error, _EVALUATE) from error
