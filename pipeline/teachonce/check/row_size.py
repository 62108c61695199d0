"""What the rows of a cache take, as soon as classes and images are counted."""

from pathlib import Path

from teachonce.cache import cache_config
from teachonce.format import layout, schema
from teachonce.teacher import teacher_config
from teachonce.views import view_policy

_NO_DIGEST = "0" * 64
_LEAST, _LEAST_TAIL = 0.5, 0.1
"""Parts of their bytes that rows and tails keep when compressed, at the least; RESULTS.md has 0.7 and 0.15."""


def placeholder_recipe(
    teacher: teacher_config.TeacherConfig,
    policy: view_policy.Policy,
    settings: cache_config.CacheConfig,
    num_classes: int,
) -> schema.Recipe:
    """What a row of the training store is, but for whose weights and classes it is of."""
    whose = schema.Teacher(
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
    return schema.Recipe(teacher=whose, policy=policy, k=settings.k, tail=tail)  # type: ignore[arg-type]


def require_block_limits(
    row: schema.Recipe, settings: cache_config.CacheConfig, rows_per_tar: int, where: Path
) -> None:
    """Refuse rows whose blocks or objects are too large to be held in memory.

    Raises:
        ConfigError: they are.
    """
    layout.require_bounded(
        layout.array_specs(row, settings.rows_per_tar or rows_per_tar), settings.seeds_per_unit, where
    )


def least_bytes(row: schema.Recipe, views: int) -> int:
    """Bytes that rows of so many views surely take on a disk."""
    tail = row.tail.rank if isinstance(row.tail, schema.TransformTail) else 0
    return int(views * ((layout.bytes_per_view(row) - tail) * _LEAST + tail * _LEAST_TAIL))
