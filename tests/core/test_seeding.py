import torch

from teachonce.core import seeding


def draw(*parts: object) -> list[float]:
    seeding.seed_torch(*parts)
    return torch.empty(4).uniform_().tolist()


def test_the_parts_alone_decide():
    first = draw("step", 0, 1)
    torch.empty(1000).uniform_()
    assert draw("step", 0, 1) == first


def test_every_part_counts():
    assert len({tuple(draw(*parts)) for parts in (("a", 0, 1), ("b", 0, 1), ("a", 1, 0), ("a", 0, "1"), ("a", 0))}) == 5
