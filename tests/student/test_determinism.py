"""When a GPU adds in one order; what needs a GPU for it is in tests/gpu."""

import pytest
import torch

from teachonce.core import errors
from teachonce.student import determinism

CUDA = torch.device("cuda")


def test_it_holds_for_the_work_and_no_longer():
    assert not torch.are_deterministic_algorithms_enabled()
    with determinism.deterministic_kernels(CUDA, always=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    with determinism.deterministic_kernels(CUDA, always=False):
        assert not torch.are_deterministic_algorithms_enabled()
    with determinism.deterministic_kernels(torch.device("cpu"), always=True):
        assert not torch.are_deterministic_algorithms_enabled()


def test_a_part_that_knows_no_order_is_one_line():
    text = "max_pool2d_with_indices_backward_cuda does not have a deterministic implementation, but you set …"
    with (
        pytest.raises(
            errors.ConfigError, match=r"student: deterministic must be false for a network with max_pool2d_\w+, "
        ),
        determinism.deterministic_kernels(CUDA, always=True),
    ):
        raise RuntimeError(text)
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="another"), determinism.deterministic_kernels(CUDA, always=True):
        raise RuntimeError("another")
