"""How long a run is, in steps and passes over the images."""

from dataclasses import dataclass

from teachonce.core import errors
from teachonce.shards import index
from teachonce.student import batch_shares, lanes, train_config
from teachonce.views.view_policy import Policy


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many steps a run has, and where its passes and its warm-up end."""

    steps_a_pass: int
    """Steps in which every image is shown with all of its repeats."""
    total: int
    """Steps of the run; the last pass may be cut short."""
    warmup: int
    """Steps of the warm-up."""

    @property
    def passes(self) -> int:
        """Passes that the run begins; the last may be cut short."""
        return -(-self.total // self.steps_a_pass)

    def position(self, step: int) -> tuple[int, int]:
        """Pass and step within it of a step of the run."""
        return divmod(step, self.steps_a_pass)


def mix_groups_per_tar(shards: index.Shards, policy: Policy) -> list[int]:
    """Mix groups of each tar of the training split."""
    # Rounded up: the odd image of a tar has no partner, and is a mix group by itself.
    images = 1 if policy.mix is None else 2
    return [-(-shard.nsamples // images) for shard in shards.index.of_split("train")]


def plan_schedule(config: train_config.TrainConfig, shards: index.Shards, policy: Policy, ranks: int) -> Schedule:
    """The length of a run, where the batch fits the policy and the ranks.

    Args:
        config: batch, lanes and epochs.
        shards: the images.
        policy: of their views.
        ranks: training processes.

    Raises:
        ConfigError: it does not fit.
    """
    errors.raise_problems(batch_shares.divisibility_problems(config, policy, ranks, "student"))
    views = batch_shares.views_per_mix_group(policy)
    mix_groups = sum(mix_groups_per_tar(shards, policy))
    return from_epochs(
        config, lanes.steps_per_pass(mix_groups, config.batch_size // views, config.lanes), policy.repeats
    )


def from_epochs(config: train_config.TrainConfig, steps_a_pass: int, repeats: int) -> Schedule:
    """The schedule of a configuration's epochs.

    Args:
        config: epochs, and what one is.
        steps_a_pass: from `lanes.steps_per_pass`.
        repeats: views of an image in a pass.
    """
    epochs_a_pass = repeats if config.epoch == "views" else 1

    # Rounded once, from epochs to steps: the warm-up and the run end on steps that no count of ranks moves.
    def steps(epochs: int) -> int:
        return round(epochs * steps_a_pass / epochs_a_pass)

    return Schedule(steps_a_pass, max(1, steps(config.epochs)), steps(config.warmup_epochs))
