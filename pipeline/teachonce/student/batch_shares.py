"""How a batch is shared out over lanes and processes: what must divide what."""

from teachonce.core import errors
from teachonce.student import student_config
from teachonce.views.view_policy import Policy


def views_an_atom(policy: Policy) -> int:
    """Places of a batch that an atom takes, which a batch never splits."""
    return policy.repeats * (1 if policy.mix is None else 2)


def problems(
    settings: student_config.StudentConfig, policy: Policy, processes: int, where: object
) -> list[errors.ConfigError]:
    """What of a recipe fits neither the policy of the views nor the processes, a line each.

    Args:
        settings: the recipe.
        policy: of the training views.
        processes: training processes.
        where: the recipe's origin.
    """
    views, found = views_an_atom(policy), []
    if settings.batch_size % (settings.lanes * views):
        whole = f"a multiple of {settings.lanes * views}: {settings.lanes} lanes of {views} views that stay together"
        found.append(
            errors.ConfigError.for_value(where, "batch_size", whole, settings.batch_size, "Change it, or lanes")
        )
    streams = processes * max(1, settings.workers)
    if settings.lanes % streams:
        whole = f"a multiple of ranks × workers, {streams}"
        found.append(errors.ConfigError.for_value(where, "lanes", whole, settings.lanes, "Change it, or workers"))
    if settings.accumulate > (most := settings.batch_size // views // processes):
        whole = f"at most {most}, what a rank's share of a batch can be cut into"
        found.append(
            errors.ConfigError.for_value(
                where, "accumulate", whole, settings.accumulate, "Lower it, or raise batch_size"
            )
        )
    return found
