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
"""Keys of a student's entry that change no step's time: students that differ in these alone are timed once."""


class EstimateParams(config.Model):
    """Entries of params.yaml that are priced; the others are passed over."""

    views: str
    """Name of a file in configs/views."""
    teacher: str
    """Name of a file in configs/teacher."""
    cache: str
    """Name of a file in configs/cache."""
    students: dict[str, object]
    """Entries of the students by name; each is checked when it is read."""


@dataclass(frozen=True, slots=True)
class EstimateRequest:
    """What to price: a project's settings, some of them replaced."""

    params: Path
    """params.yaml."""
    configs: Path
    """Folder of views/, teacher/, cache/ and student/."""
    images: int | None = None
    """Count of training images; by default of those that there are."""
    aug_seeds: int | None = None
    """Views of each training image; by default as configured."""
    epochs: int | None = None
    """Epochs of all students; by default as configured for each."""


@dataclass(frozen=True, slots=True)
class EstimateConfigs:
    """The configurations of all stages that are priced."""

    views: views_config.ViewsConfig
    """Policy and count of aug seeds."""
    teacher: teacher_config.TeacherConfig
    """Architecture and batch size of the teacher."""
    cache: cache_config.CacheConfig
    """What a row holds, and by how many processes the cache is made."""
    students: dict[str, student_spec.Student]
    """Entry and training configuration of each student, by name."""


def read(request: EstimateRequest) -> EstimateConfigs:
    """Read params.yaml and all that it names, with the changes of the request.

    Raises:
        ConfigError: a value is refused.
    """
    for name, count in (("images", request.images), ("seeds", request.aug_seeds), ("epochs", request.epochs)):
        if count is not None and count < 1:
            raise errors.ConfigError.for_value("estimate", f"--{name}", "at least 1", count, "Raise it")
    data = config.read(request.params)
    entries = (
        {name: data[name] for name in EstimateParams.model_fields if name in data} if isinstance(data, dict) else data
    )
    params = config.parse(entries, EstimateParams, str(request.params))
    if not params.students:
        raise errors.ConfigError(
            request.params, "students is empty", "Add one, for instance: plain: {model: deit_micro}"
        )
    views = _changed(
        request.configs / "views" / f"{params.views}.yaml", views_config.ViewsConfig, aug_seeds=request.aug_seeds
    )
    return EstimateConfigs(
        views=views,
        teacher=config.load(request.configs / "teacher" / f"{params.teacher}.yaml", teacher_config.TeacherConfig),
        cache=config.load(request.configs / "cache" / f"{params.cache}.yaml", cache_config.CacheConfig),
        students={name: _student(request, name) for name in params.students},
    )


def _student(request: EstimateRequest, name: str) -> student_spec.Student:
    spec = student_spec.read_spec(request.params, name)
    path = request.configs / "student" / f"{spec.model}.yaml"
    return student_spec.Student(name, spec, _changed(path, train_config.TrainConfig, epochs=request.epochs))


def _changed(path: Path, model: type[config.M], **changes: int | None) -> config.M:
    """A configuration with some values replaced."""
    settings = config.load(path, model)
    overrides = {name: value for name, value in changes.items() if value is not None}
    if not overrides:
        return settings
    # Checked as a whole again: a count of seeds must still be a multiple of the policy's repeats, for instance.
    override_text = ", ".join(f"{name} {value}" for name, value in overrides.items())
    return config.parse(settings.model_dump(mode="json") | overrides, model, f"{path}, with {override_text}")


def group_equal_students(configs: EstimateConfigs) -> list[tuple[str, ...]]:
    """Names of the students, those together that differ in nothing that takes time: each group is timed once."""
    groups: dict[str, list[str]] = {}
    for name, student in configs.students.items():
        groups.setdefault(student.spec.model_dump_json(exclude=_TIMELESS), []).append(name)
    return [tuple(names) for names in groups.values()]


def student_schedule(
    configs: EstimateConfigs, name: str, shards: index.Shards, images: int | None
) -> schedule.Schedule:
    """Steps of a student's run, on the images that there are or on another count of them.

    Args:
        configs: all configurations.
        name: of the student.
        shards: the images that there are.
        images: count of training images to price instead; None prices those that there are.

    Raises:
        ConfigError: the batch cannot hold what stays together, or its processes cannot share it.
    """
    train_settings = configs.students[name].config
    # One tar that claims all images: the schedule counts them, and nothing is read.
    if images is not None:
        shards = shards.only(
            shard.model_copy(update={"nsamples": images}) for shard in shards.index.of_split("train")[:1]
        )
    ranks = train_settings.launcher.processes if train_settings.launcher else 1
    return schedule.plan_schedule(train_settings, shards, configs.views.policy, ranks)
