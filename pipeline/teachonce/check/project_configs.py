"""Everything that params.yaml chooses, read whole: what can be read is kept, what cannot is a problem."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pydantic

from teachonce.cache import cache_config
from teachonce.check.check_findings import Findings
from teachonce.core import config, project_params
from teachonce.core.project_params import ConfigChoices
from teachonce.prepare import dataset_config
from teachonce.student import student_spec, train_config
from teachonce.teacher import teacher_config
from teachonce.views import views_config


class Params(config.Model):
    """params.yaml."""

    dataset: str
    """A file of configs/dataset."""
    source: str
    """Folder of the images."""
    views: str
    """A file of configs/views."""
    teacher: str
    """A file of configs/teacher."""
    cache: str
    """A file of configs/cache."""
    students: dict[str, object] = pydantic.Field(min_length=1)
    """By name."""


@dataclass(frozen=True, slots=True)
class LoadedConfigs:
    """All that could be read; None is what could not."""

    chosen: ConfigChoices
    """Where it was read."""
    source: Path | None
    """Folder of the images."""
    dataset: dataset_config.Data | None
    """Which images."""
    views: views_config.ViewsConfig | None
    """Which views."""
    teacher: teacher_config.TeacherConfig | None
    """Which teacher."""
    cache: cache_config.CacheConfig | None
    """How rows are kept."""
    students: Mapping[str, student_spec.StudentSpec]
    """By name."""
    recipes: Mapping[str, train_config.TrainConfig]
    """By the name of the student."""

    def path(self, group: str) -> Path:
        """The file of a group."""
        return self.chosen.file(group)

    def recipe_path(self, name: str) -> Path:
        """The recipe of a student."""
        return self.chosen.recipe(self.students[name].model, name)


def read(chosen: ConfigChoices, findings: Findings) -> LoadedConfigs:
    """Read params.yaml and every file that it names.

    Args:
        chosen: params.yaml and the folder of the files.
        findings: are given every problem.
    """
    params = findings.gather(lambda: project_params.read(chosen.params))
    keys = params if isinstance(params, dict) else {}
    if params is not None or not findings.problems:
        findings.gather(lambda: config.parse(params, Params, str(chosen.params)))
    given = keys.get("students")
    students = _students(chosen, given if isinstance(given, dict) else {}, findings)
    # What params.yaml itself gets wrong has been told.
    texts = {key for key, value in keys.items() if isinstance(value, str)}

    def file(group: str, model: type[config.M]) -> config.M | None:
        return findings.gather(lambda: config.load(chosen.file(group), model)) if group in texts else None

    return LoadedConfigs(
        chosen=chosen,
        source=findings.gather(chosen.source) if "source" in texts else None,
        dataset=findings.gather(lambda: dataset_config.load(chosen.file("dataset"))) if "dataset" in texts else None,
        views=file("views", views_config.ViewsConfig),
        teacher=file("teacher", teacher_config.TeacherConfig),
        cache=file("cache", cache_config.CacheConfig),
        students=students,
        recipes=_recipes(chosen, students, findings),
    )


def _students(
    chosen: ConfigChoices, given: Mapping[str, object], findings: Findings
) -> dict[str, student_spec.StudentSpec]:
    students = {}
    for name, data in given.items():
        findings.gather(functools.partial(student_spec.require_name, chosen.params, name))
        parse = functools.partial(student_spec.parse_spec, data, chosen.params, name)
        if (student := findings.gather(parse)) is not None:
            students[name] = student
    return students


def _recipes(
    chosen: ConfigChoices, students: Mapping[str, student_spec.StudentSpec], findings: Findings
) -> dict[str, train_config.TrainConfig]:
    recipes = {}
    for name, student in students.items():
        recipe = findings.gather(functools.partial(_recipe, chosen, student.model, name))
        if recipe is not None:
            recipes[name] = recipe
    return recipes


def _recipe(chosen: ConfigChoices, model: str, name: str) -> train_config.TrainConfig:
    return config.load(chosen.recipe(model, name), train_config.TrainConfig)
