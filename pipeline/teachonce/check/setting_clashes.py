"""Configurations against each other: what each of them allows, and all together do not."""

from pathlib import Path

from teachonce.cache import cache_config
from teachonce.check.project_configs import LoadedConfigs
from teachonce.core import errors
from teachonce.format import schema
from teachonce.student import batch_shares, student_spec
from teachonce.views import views_config


def cross_check(choice: LoadedConfigs, num_classes: int | None) -> list[errors.ConfigError]:
    """An error for each clash.

    Args:
        choice: what could be read.
        num_classes: of the images; None where only they can tell.
    """
    found = []
    if choice.views and choice.cache:
        found += _seeds(choice.views, choice.cache, choice.path("cache"))
    if choice.cache and num_classes is not None:
        found += _classes(choice.cache, num_classes, choice.path("cache"))
    if choice.views:
        for name, recipe in choice.recipes.items():
            processes = recipe.launcher.processes if recipe.launcher else 1
            found += batch_shares.divisibility_problems(
                recipe, choice.views.policy, processes, choice.recipe_path(name)
            )
    if choice.cache:
        for name, student in choice.students.items():
            found += _kept(name, student, choice.cache, num_classes, choice.chosen.params)
    return found


def _seeds(views: views_config.ViewsConfig, cache: cache_config.CacheConfig, where: Path) -> list[errors.ConfigError]:
    if views.aug_seeds % cache.seeds_per_unit == 0:
        return []
    condition = f"a divisor of aug_seeds in configs/views, {views.aug_seeds}"
    return [errors.ConfigError.for_value(where, "seeds_per_unit", condition, cache.seeds_per_unit, "Change either")]


def _classes(cache: cache_config.CacheConfig, num_classes: int, where: Path) -> list[errors.ConfigError]:
    if cache.k == "all":
        return []
    found = []
    if cache.k >= num_classes:
        condition = f"below the {num_classes} classes, or all"
        found.append(errors.ConfigError.for_value(where, "k", condition, cache.k, "Lower it, or write all"))
    if isinstance(cache.tail, cache_config.TransformConfig):
        rank = cache.tail.rank
        most = min(num_classes - 1, schema.MAX_BASIS // num_classes)
        if rank > most:
            condition = f"at most {most} with {num_classes} classes"
            found.append(errors.ConfigError.for_value(where, "tail.rank", condition, rank, "Lower it"))
    return found


def _kept(
    name: str, student: student_spec.StudentSpec, cache: cache_config.CacheConfig, num_classes: int | None, params: Path
) -> list[errors.ConfigError]:
    """A student may use as many classes of a row as it keeps; of whole rows, all but one."""
    most = cache.k if cache.k != "all" else None if num_classes is None else num_classes - 1
    if student.kind != "soft" or student.k is None or most is None or student.k <= most:
        return []
    condition = f"at most {most}, what a row of configs/cache keeps"
    return [
        errors.ConfigError.for_value(
            params, f"students.{name}.k", condition, student.k, "Lower it, or raise k of the cache"
        )
    ]
