"""How a batch is shared out over lanes and processes: what must divide what."""

from teachonce.core import errors
from teachonce.student import train_config
from teachonce.views.view_policy import Policy


def views_per_mix_group(policy: Policy) -> int:
    """Places of a batch that a mix group takes, which a batch never splits."""
    return policy.repeats * (1 if policy.mix is None else 2)


def divisibility_problems(
    config: train_config.TrainConfig, policy: Policy, processes: int, where: object
) -> list[errors.ConfigError]:
    """What of a training configuration fits neither the policy of the views nor the processes, a line each.

    Args:
        config: batch, lanes, workers and accumulation.
        policy: of the training views.
        processes: training processes.
        where: the configuration's origin.
    """
    views, problems = views_per_mix_group(policy), []
    # Every lane gives the same count of whole mix groups: then a batch is the same however lanes are shared, and a
    # place in it tells its lane.
    if config.batch_size % (config.lanes * views):
        condition = f"a multiple of {config.lanes * views}: {config.lanes} lanes of {views} views that stay together"
        problems.append(
            errors.ConfigError.for_value(where, "batch_size", condition, config.batch_size, "Change it, or lanes")
        )
    # Each loader process takes whole lanes: two that shared one would have to agree on what each gives out.
    streams = processes * max(1, config.workers)
    if config.lanes % streams:
        condition = f"a multiple of ranks × workers, {streams}"
        problems.append(errors.ConfigError.for_value(where, "lanes", condition, config.lanes, "Change it, or workers"))
    if config.accumulate > (most := config.batch_size // views // processes):
        condition = f"at most {most}, what a rank's share of a batch can be cut into"
        problems.append(
            errors.ConfigError.for_value(
                where, "accumulate", condition, config.accumulate, "Lower it, or raise batch_size"
            )
        )
    return problems
