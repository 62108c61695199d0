"""Configurations against each other: settings that each file allows, and all together do not."""

from pathlib import Path

from teachonce.cache import cache_config
from teachonce.check.project_configs import LoadedConfigs
from teachonce.core import errors
from teachonce.format import schema
from teachonce.student import batch_shares, student_spec
from teachonce.teacher import teacher_config
from teachonce.views import views_config


def cross_check(configs: LoadedConfigs, num_classes: int | None) -> list[errors.ConfigError]:
    """An error for each clash.

    Args:
        configs: the configurations that could be read.
        num_classes: of the images; None as long as only the images can tell.
    """
    problems = []
    if configs.views and configs.cache:
        problems += _seed_problems(configs.views, configs.cache, configs.path("cache"))
    if num_classes is not None and num_classes < teacher_config.LEAST_CLASSES:
        condition, cure = "two or more, which a teacher can tell apart", "Add a class: configs/dataset, or source"
        problems.append(errors.ConfigError.for_value(configs.choices.params, "classes", condition, num_classes, cure))
    if configs.cache and num_classes is not None:
        problems += _class_problems(configs.cache, num_classes, configs.path("cache"))
    if configs.views:
        for name, recipe in configs.recipes.items():
            processes = recipe.launcher.processes if recipe.launcher else 1
            problems += batch_shares.divisibility_problems(
                recipe, configs.views.policy, processes, configs.recipe_path(name)
            )
    if configs.cache:
        for name, student in configs.students.items():
            problems += _k_problems(name, student, configs.cache, num_classes, configs.choices.params)
    return problems


def _seed_problems(
    views: views_config.ViewsConfig, cache: cache_config.CacheConfig, where: Path
) -> list[errors.ConfigError]:
    if views.aug_seeds % cache.seeds_per_unit == 0:
        return []
    condition = f"a divisor of aug_seeds in configs/views, {views.aug_seeds}"
    return [errors.ConfigError.for_value(where, "seeds_per_unit", condition, cache.seeds_per_unit, "Change either")]


def _class_problems(cache: cache_config.CacheConfig, num_classes: int, where: Path) -> list[errors.ConfigError]:
    if cache.k == "all":
        return []
    problems = []
    if cache.k >= num_classes:
        condition = f"below the {num_classes} classes, or all"
        problems.append(errors.ConfigError.for_value(where, "k", condition, cache.k, "Lower it, or write all"))
    if isinstance(cache.tail, cache_config.TransformConfig):
        rank = cache.tail.rank
        limit = min(num_classes - 1, schema.MAX_BASIS // num_classes)
        if rank > limit:
            condition = f"at most {limit} with {num_classes} classes"
            problems.append(errors.ConfigError.for_value(where, "tail.rank", condition, rank, "Lower it"))
    return problems


def _k_problems(
    name: str, student: student_spec.StudentSpec, cache: cache_config.CacheConfig, num_classes: int | None, params: Path
) -> list[errors.ConfigError]:
    """A line where a student asks for more classes than a row keeps; of whole rows, for all of them."""
    limit = cache.k if cache.k != "all" else None if num_classes is None else num_classes - 1
    if student.kind != "soft" or student.k is None or limit is None or student.k <= limit:
        return []
    condition = f"at most {limit}, what a row of configs/cache keeps"
    return [
        errors.ConfigError.for_value(
            params, f"students.{name}.k", condition, student.k, "Lower it, or raise k of the cache"
        )
    ]
