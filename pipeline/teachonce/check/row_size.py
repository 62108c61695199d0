"""What the rows of a cache take in memory and on a disk, estimated before the teacher has weights."""

from pathlib import Path

from teachonce.cache import cache_config
from teachonce.format import layout, schema
from teachonce.teacher import teacher_config
from teachonce.views import view_policy

_NO_DIGEST = "0" * 64
_LEAST_SHARE, _LEAST_TAIL_SHARE = 0.5, 0.1
"""Shares of their bytes to which rows and tails compress at best; RESULTS.md has 0.7 and 0.15. Without room for
these, there is none for the store."""


def placeholder_recipe(
    teacher: teacher_config.TeacherConfig,
    policy: view_policy.Policy,
    settings: cache_config.CacheConfig,
    num_classes: int,
) -> schema.Recipe:
    """The recipe of the training store, with zeros for digests of weights, classes and basis, which do not exist yet.

    Args:
        teacher: the teacher's settings.
        policy: of the training views.
        settings: what a row holds.
        num_classes: length of a row of logits.
    """
    teacher_identity = schema.Teacher(
        architecture=teacher.architecture,
        arguments=teacher.arguments,
        weights_sha256=_NO_DIGEST,
        size=teacher.size,
        mean=teacher.mean,
        std=teacher.std,
        precision=teacher.precision,
        num_classes=num_classes,
        classes_sha256=_NO_DIGEST,
    )
    tail: schema.TransformTail | str = "none" if settings.k == "all" else "flat"
    if settings.k != "all" and isinstance(settings.tail, cache_config.TransformConfig):
        tail = schema.TransformTail(rank=settings.tail.rank, step=settings.tail.step, basis_sha256=_NO_DIGEST)
    return schema.Recipe(teacher=teacher_identity, policy=policy, k=settings.k, tail=tail)  # type: ignore[arg-type]


def require_block_limits(
    recipe: schema.Recipe, settings: cache_config.CacheConfig, rows_per_tar: int, where: Path
) -> None:
    """Refuse rows whose blocks or objects are too large to be held in memory.

    Args:
        recipe: what a row holds.
        settings: rows and seeds of an object.
        rows_per_tar: of the index, where the settings name none.
        where: file of the settings, for the message.

    Raises:
        ConfigError: a block or an object is too large.
    """
    layout.require_bounded(
        layout.array_specs(recipe, settings.rows_per_tar or rows_per_tar), settings.seeds_per_unit, where
    )


def least_bytes(recipe: schema.Recipe, views: int) -> int:
    """Bytes that rows of so many views take on a disk, even if they compress as well as they can."""
    tail = recipe.tail.rank if isinstance(recipe.tail, schema.TransformTail) else 0
    return int(views * ((layout.bytes_per_view(recipe) - tail) * _LEAST_SHARE + tail * _LEAST_TAIL_SHARE))
