"""What to run on the images that were seen: sizes, counts of views and epochs, and what that takes, roughly."""

import os
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import config
from teachonce.teacher import teacher_config
from teachonce.tools.init import image_survey

BLOCK = 12
"""Aug seeds and epochs are multiples of it: whole passes of three repeats, and whole units of the cache."""
_STUDENT_VIEWS = 48_000
_EPOCHS = (24, 120)
_SMALL_PX = 96
_MANY_IMAGES = 20_000
_TEACHER_S = 600.0
_TRAINING_S = 2400.0
"""Seconds of one core: for all answers of the teacher, and for its training, which has 20 passes where they do."""
_TRAINING_PASSES = 20
_MOST_ROW_BYTES = 1 << 30
_CPU_S = {"photos_64": (0.002, 0.01, 0.006), "photos_128": (0.01, 0.028, 0.006)}
"""Seconds of one core: the teacher's answer to a view, a view in its training, and a view in a student's."""
_IMAGENET_TEACHER, _IMAGENET_S = "tf_efficientnet_lite0", 0.05


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What params.yaml and the files it names will say."""

    preset: str
    """Name of the files in configs/views and configs/student that the new ones are made of."""
    teacher: str
    """Name of a file in configs/teacher."""
    cache: str
    """Name of a file in configs/cache."""
    aug_seeds: int
    """Views of each training image."""
    epochs: int
    """Of each student, as long as the images: an epoch shows as many views."""
    size_reason: str
    """Why that preset."""
    images: int
    """To learn from."""
    has_labels: bool
    """Whether students learn from labels, too."""
    teacher_passes: int | None = None
    """Passes of the teacher's own training, where there are to be fewer than usual: the first one for its new head."""

    @property
    def students(self) -> int:
        """Count of the students: where there are no labels, there is none to compare with that learns from them."""
        return 4 if self.has_labels else 3


def choose_run(survey: image_survey.Survey, *, has_labels: bool) -> RunPlan:
    """Choose so that a laptop is done within the hour, where the images allow it."""
    images = max(1, survey.total("train"))
    preset, reason = _preset(survey)
    epochs = _blocks(_STUDENT_VIEWS / images, *_EPOCHS)
    teacher = preset if has_labels else _IMAGENET_TEACHER
    answer_s = _CPU_S[preset][0] if has_labels else _IMAGENET_S
    aug_seeds = min(epochs, _blocks(_TEACHER_S / answer_s / images, BLOCK, epochs))
    row_bytes = 4 * len(survey.classes) * images * aug_seeds
    cache = "photos" if row_bytes <= _MOST_ROW_BYTES or len(survey.classes) <= 10 else "photos_top10"
    passes = max(3, int(_TRAINING_S / _CPU_S[preset][1] / images)) if has_labels else _TRAINING_PASSES
    fewer_passes = passes if passes < _TRAINING_PASSES else None
    return RunPlan(preset, teacher, cache, aug_seeds, epochs, reason, images, has_labels, fewer_passes)


def _preset(survey: image_survey.Survey) -> tuple[str, str]:
    short = survey.short_side()
    if short <= _SMALL_PX:
        return "photos_64", f"the images' shorter side is {short:,.0f} pixels (median)"
    if survey.total("train") > _MANY_IMAGES:
        return "photos_64", f"{survey.total('train'):,} images at 128 pixels are more than a laptop's"
    return "photos_128", f"the images' shorter side is {short:,.0f} pixels (median)"


def _blocks(count: float, least: int, most: int) -> int:
    return min(most, max(least, int(count) // BLOCK * BLOCK))


@dataclass(frozen=True, slots=True)
class Price:
    """Seconds that the stages take on this machine, roughly."""

    cores: int
    """That share the work."""
    teacher_s: float
    """Training the teacher; 0 where its weights are ready."""
    cache_s: float
    """The teacher's answers to all views."""
    students_s: float
    """All students, one after the other."""

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.teacher_s + self.cache_s + self.students_s


def price_run(plan: RunPlan, survey: image_survey.Survey, configs: Path) -> Price:
    """What a run takes, by speeds that were measured on another machine and the time that these images take to decode.

    Args:
        plan: what will run.
        survey: of the images.
        configs: folder of the configurations.
    """
    cores = len(os.sched_getaffinity(0))
    answer_s, learn_s, student_s = _CPU_S[plan.preset]
    if not plan.has_labels:
        answer_s = _IMAGENET_S
    passes = plan.teacher_passes or _teacher_passes(configs / "teacher" / f"{plan.teacher}.yaml")
    decode_s = survey.decode_s
    return Price(
        cores=cores,
        teacher_s=passes * plan.images * (learn_s / cores + decode_s),
        cache_s=plan.aug_seeds * plan.images * (answer_s + decode_s / BLOCK) / cores,
        students_s=plan.students * plan.epochs * plan.images * (student_s / cores + decode_s / 3),
    )


def _teacher_passes(path: Path) -> int:
    """Passes over the images in the teacher's own training."""
    weights = config.load(path, teacher_config.TeacherConfig).weights
    if isinstance(weights, teacher_config.FinetunedWeights):
        return weights.head_epochs + weights.epochs
    return weights.epochs if isinstance(weights, teacher_config.TrainedWeights) else 0
