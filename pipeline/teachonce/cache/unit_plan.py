"""Which units make a store, from its counts of tars and seeds alone: no file is read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """A tar under a group of aug seeds: what one worker computes, writes and may lose at a time."""

    tar: int
    """Position of the tar in the extent."""
    group: int
    """Position of the group of seeds among those of the store."""
    aug_seeds: tuple[int, ...]
    """The seeds of the group, consecutive."""


def enumerate_units(tars: int, aug_seeds: int, seeds_per_unit: int) -> tuple[Unit, ...]:
    """All units of a store, group by group, so that the first epochs' rows are there first.

    Args:
        tars: count of tars.
        aug_seeds: count of seeds, a multiple of `seeds_per_unit`.
        seeds_per_unit: seeds of a group.
    """
    groups = range(aug_seeds // seeds_per_unit)
    return tuple(
        Unit(tar=tar, group=group, aug_seeds=tuple(range(group * seeds_per_unit, (group + 1) * seeds_per_unit)))
        for group in groups
        for tar in range(tars)
    )
