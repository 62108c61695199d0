"""JSON Schemas of params.yaml and of each folder of configs, from the models that read them."""

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from teachonce.cache import cache_config
from teachonce.check import project_configs
from teachonce.prepare import dataset_config
from teachonce.student import student_spec, train_config
from teachonce.teacher import teacher_config
from teachonce.views import views_config

DIALECT = "https://json-schema.org/draft/2020-12/schema"


_STUDENTS = pydantic.Field(
    min_length=1, description="Students by name: a letter, then letters, digits, `_` and `-`; each by its kind."
)
# params.yaml is read with each student by itself, so that one that is refused leaves the others.
_PARAMS = pydantic.create_model(
    "Params", __base__=project_configs.Params, students=(dict[str, student_spec.StudentSpec], _STUDENTS)
)
_ROOTS: Mapping[str, Any] = {
    "params": _PARAMS,
    "dataset": Annotated[dataset_config.Data, pydantic.Field(discriminator="kind")],
    "views": views_config.ViewsConfig,
    "teacher": teacher_config.TeacherConfig,
    "cache": cache_config.CacheConfig,
    "student": train_config.TrainConfig,
}


def build_schemas() -> dict[str, dict[str, object]]:
    """A schema for params.yaml and one for each folder of configs, by its name."""
    schemas = {}
    for name, root in _ROOTS.items():
        schema = pydantic.TypeAdapter(root).json_schema(mode="validation")
        schemas[name] = {"$schema": DIALECT, **_with_descriptions_in_lines(schema)}
    return schemas


def _with_descriptions_in_lines(data: object) -> dict[str, object]:
    """The schema without titles, which repeat the keys, and with each description as one line."""
    cleaned = _cleaned(data)
    return cleaned if isinstance(cleaned, dict) else {}


def _cleaned(data: object) -> object:
    if isinstance(data, list):
        return [_cleaned(item) for item in data]
    if not isinstance(data, dict):
        return data
    result = {}
    for key, value in data.items():
        if key == "title" and isinstance(value, str):
            continue
        is_text = key == "description" and isinstance(value, str)
        result[key] = " ".join(str(value).split()) if is_text else _cleaned(value)
    return result
