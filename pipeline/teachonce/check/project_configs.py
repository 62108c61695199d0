"""Everything that params.yaml chooses, read to the end: each file that cannot be read is a problem of its own."""

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
    """The keys of params.yaml."""

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
    """Students by name; each is read as a `student_spec.StudentSpec` by itself."""


@dataclass(frozen=True, slots=True)
class LoadedConfigs:
    """The configurations of a project that could be read; None for one that could not."""

    choices: ConfigChoices
    """params.yaml, and the folder of the files that it names."""
    source: Path | None
    """Folder of the images."""
    dataset: dataset_config.Data | None
    """The file of configs/dataset."""
    views: views_config.ViewsConfig | None
    """The file of configs/views."""
    teacher: teacher_config.TeacherConfig | None
    """The file of configs/teacher."""
    cache: cache_config.CacheConfig | None
    """The file of configs/cache."""
    students: Mapping[str, student_spec.StudentSpec]
    """Students by name."""
    recipes: Mapping[str, train_config.TrainConfig]
    """Training configurations by the name of the student that uses them."""

    def path(self, group: str) -> Path:
        """The file that is chosen of a folder of configs: `data`, `views`, `teacher` or `cache`."""
        return self.choices.file(group)

    def recipe_path(self, name: str) -> Path:
        """The file of a student's training configuration."""
        return self.choices.recipe(self.students[name].model, name)


def read(choices: ConfigChoices, findings: Findings) -> LoadedConfigs:
    """Read params.yaml and every file that it names.

    Args:
        choices: params.yaml and the folder of the files.
        findings: get a problem for each value that is refused, of all files.
    """
    params = findings.gather(lambda: project_params.read(choices.params))
    values = params if isinstance(params, dict) else {}
    # An empty file is None too, and is refused by the model; one that could not be read is a problem already.
    if params is not None or not findings.problems:
        findings.gather(lambda: config.parse(params, Params, str(choices.params)))
    students_by_name = values.get("students")
    students = _read_students(choices, students_by_name if isinstance(students_by_name, dict) else {}, findings)
    # A key that is missing or no text is a problem already: to load a file by it would report it twice.
    text_keys = {key for key, value in values.items() if isinstance(value, str)}

    def load_config(group: str, model: type[config.M]) -> config.M | None:
        return findings.gather(lambda: config.load(choices.file(group), model)) if group in text_keys else None

    return LoadedConfigs(
        choices=choices,
        source=findings.gather(choices.source) if "source" in text_keys else None,
        dataset=findings.gather(lambda: dataset_config.load(choices.file("dataset")))
        if "dataset" in text_keys
        else None,
        views=load_config("views", views_config.ViewsConfig),
        teacher=load_config("teacher", teacher_config.TeacherConfig),
        cache=load_config("cache", cache_config.CacheConfig),
        students=students,
        recipes=_read_recipes(choices, students, findings),
    )


def _read_students(
    choices: ConfigChoices, students_by_name: Mapping[str, object], findings: Findings
) -> dict[str, student_spec.StudentSpec]:
    students = {}
    for name, data in students_by_name.items():
        findings.gather(functools.partial(student_spec.require_name, choices.params, name))
        parse = functools.partial(student_spec.parse_spec, data, choices.params, name)
        if (student := findings.gather(parse)) is not None:
            students[name] = student
    return students


def _read_recipes(
    choices: ConfigChoices, students: Mapping[str, student_spec.StudentSpec], findings: Findings
) -> dict[str, train_config.TrainConfig]:
    recipes = {}
    for name, student in students.items():
        recipe = findings.gather(functools.partial(_load_recipe, choices, student.model, name))
        if recipe is not None:
            recipes[name] = recipe
    return recipes


def _load_recipe(choices: ConfigChoices, model: str, name: str) -> train_config.TrainConfig:
    return config.load(choices.recipe(model, name), train_config.TrainConfig)
