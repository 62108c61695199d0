"""What is handed over: a student's weights with their record and their metrics, of one student, or it is refused."""

from pathlib import Path

from teachonce.core import config, errors, files
from teachonce.evaluate import evaluation_record
from teachonce.store import store_reader
from teachonce.student import student_record

_EVALUATE = "Evaluate it again: dvc repro evaluate"
_MOST_BYTES = 1 << 24  # of metrics


def read_evaluation(path: Path, of: student_record.StudentRecord, images: int) -> evaluation_record.Evaluation:
    """The metrics of a student on so many images.

    Raises:
        DataError: they are missing or of another form, or tell of another student or of other images.
    """
    found = _parse(path)
    knobs = of.student.model_dump(mode="json", include={"model", "kind", "alpha", "tau", "seed"})
    wanted: dict[str, object] = {
        "student": evaluation_record.Knobs(**knobs, token=of.student.has_token),
        "architecture": of.architecture,
        "classes": of.cache.teacher.num_classes,
        "images": images,
        "weights_sha256": of.weights_sha256,
    }
    for name, value in wanted.items():
        if getattr(found, name) != value:
            condition = f"that of the student and the shards, {value}"
            raise errors.DataError.for_value(path, name, condition, getattr(found, name), _EVALUATE)
    return found


def require_teacher(cache: store_reader.Cache, of: student_record.StudentRecord) -> None:
    """Refuse a store of the validation split that another teacher answered.

    Raises:
        IdentityError: the teacher is not the one that taught the student.
    """
    taught, here = of.cache.teacher, cache.recipe.teacher
    if taught != here:
        condition, cure = f"the student's, {taught.weights_sha256}", "Name the store beside the one it was trained from"
        raise errors.IdentityError.for_value(cache.path, "teacher", condition, here.weights_sha256, cure)


def _parse(path: Path) -> evaluation_record.Evaluation:
    try:
        data = files.read_json(path, _MOST_BYTES)
        return config.parse(data, evaluation_record.Evaluation, str(path))
    except (OSError, ValueError) as error:
        raise errors.DataError(path, f"cannot be read ({error})", _EVALUATE) from error
    except errors.ConfigError as error:
        raise errors.DataError.from_error(error, _EVALUATE) from error
