from teachonce.cache import unit_plan


def test_units_cover_every_tar_and_seed_once_in_group_order():
    units = unit_plan.enumerate_units(3, 4, 2)
    assert [(unit.group, unit.tar) for unit in units] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    covered = [(unit.tar, seed) for unit in units for seed in unit.aug_seeds]
    assert sorted(covered) == [(tar, seed) for tar in range(3) for seed in range(4)]
    assert len(set(covered)) == len(covered)


def test_growth_adds_units_and_changes_none():
    assert set(unit_plan.enumerate_units(3, 4, 2)) < set(unit_plan.enumerate_units(3, 6, 2))
    assert set(unit_plan.enumerate_units(3, 4, 2)) < set(unit_plan.enumerate_units(4, 4, 2))
