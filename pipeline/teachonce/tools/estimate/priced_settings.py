"""What is to be priced: the configurations that params.yaml names, changed as asked, and refused where they clash."""

from dataclasses import dataclass
from pathlib import Path

from teachonce.cache import cache_config
from teachonce.core import config, errors
from teachonce.shards import index
from teachonce.student import schedule, student_spec, train_config
from teachonce.teacher import teacher_config
from teachonce.views import views_config

_TIMELESS = {"seed", "alpha", "tau", "weight", "kl_scale", "teacher_smoothing", "max_tv", "accept"}
"""Fields of a student that change no step's time."""


class EstimateParams(config.Model):
    """What params.yaml names, of that which is priced."""

    views: str
    """A file of configs/views."""
    teacher: str
    """A file of configs/teacher."""
    cache: str
    """A file of configs/cache."""
    students: dict[str, object]
    """By name."""


@dataclass(frozen=True, slots=True)
class EstimateRequest:
    """What to price."""

    params: Path
    """params.yaml."""
    configs: Path
    """Folder of views/, teacher/, cache/ and student/."""
    images: int | None = None
    """Training images; by default those that there are."""
    aug_seeds: int | None = None
    """In place of the configured ones."""
    epochs: int | None = None
    """In place of the configured ones, of all students."""


@dataclass(frozen=True, slots=True)
class EstimateConfigs:
    """All configurations."""

    views: views_config.ViewsConfig
    """Policy and count of aug seeds."""
    teacher: teacher_config.TeacherConfig
    """Which network."""
    cache: cache_config.CacheConfig
    """What a row holds."""
    students: dict[str, student_spec.Student]
    """By name."""


def read(ask: EstimateRequest) -> EstimateConfigs:
    """Read and check what is asked.

    Raises:
        ConfigError: a value is refused.
    """
    for name, count in (("images", ask.images), ("seeds", ask.aug_seeds), ("epochs", ask.epochs)):
        if count is not None and count < 1:
            raise errors.ConfigError.for_value("estimate", f"--{name}", "at least 1", count, "Raise it")
    data = config.read(ask.params)
    named = (
        {name: data[name] for name in EstimateParams.model_fields if name in data} if isinstance(data, dict) else data
    )
    chosen = config.parse(named, EstimateParams, str(ask.params))
    if not chosen.students:
        raise errors.ConfigError(ask.params, "students is empty", "Add one, for instance: plain: {model: deit_micro}")
    views = _changed(ask.configs / "views" / f"{chosen.views}.yaml", views_config.ViewsConfig, aug_seeds=ask.aug_seeds)
    return EstimateConfigs(
        views=views,
        teacher=config.load(ask.configs / "teacher" / f"{chosen.teacher}.yaml", teacher_config.TeacherConfig),
        cache=config.load(ask.configs / "cache" / f"{chosen.cache}.yaml", cache_config.CacheConfig),
        students={name: _student(ask, name) for name in chosen.students},
    )


def _student(ask: EstimateRequest, name: str) -> student_spec.Student:
    spec = student_spec.read_spec(ask.params, name)
    path = ask.configs / "student" / f"{spec.model}.yaml"
    return student_spec.Student(name, spec, _changed(path, train_config.TrainConfig, epochs=ask.epochs))


def _changed(path: Path, model: type[config.M], **changes: int | None) -> config.M:
    """A configuration with some values replaced, and checked as a whole again."""
    settings = config.load(path, model)
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        return settings
    told = ", ".join(f"{name} {value}" for name, value in given.items())
    return config.parse(settings.model_dump(mode="json") | given, model, f"{path}, with {told}")


def group_equal_students(plan: EstimateConfigs) -> list[tuple[str, ...]]:
    """Names of the students, those together that differ in nothing that takes time."""
    alike: dict[str, list[str]] = {}
    for name, student in plan.students.items():
        alike.setdefault(student.spec.model_dump_json(exclude=_TIMELESS), []).append(name)
    return [tuple(names) for names in alike.values()]


def student_schedule(plan: EstimateConfigs, name: str, real: index.Shards, images: int | None) -> schedule.Schedule:
    """Steps of a student's run, on the images that there are or on so many.

    Args:
        plan: all configurations.
        name: of the student.
        real: the images that there are.
        images: how many to price instead; None prices those.

    Raises:
        ConfigError: the batch cannot hold what stays together, or its processes cannot share it.
    """
    settings = plan.students[name].config
    if images is not None:
        real = real.only(shard.model_copy(update={"nsamples": images}) for shard in real.index.of_split("train")[:1])
    ranks = settings.launcher.processes if settings.launcher else 1
    return schedule.plan_schedule(settings, real, plan.views.policy, ranks)
