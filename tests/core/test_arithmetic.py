"""Of the flags that decide how float32 is computed; warnings are errors here, so that no deprecated one is used."""

import pytest
import torch

from teachonce.core import arithmetic


@pytest.fixture
def flags():
    """As torch has them by default, and again afterwards."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_what_torch_and_its_compiler_read_afterwards_is_exact_and_raises_nothing(flags):
    assert torch.get_float32_matmul_precision() == "high"
    arithmetic.use_exact_float32()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    # Reads the flag, and sets it again afterwards.
    with torch.backends.cudnn.flags(enabled=False, allow_tf32=True):
        pass
    assert not torch.backends.cudnn.allow_tf32
    for operation in (torch.backends.cudnn.conv, torch.backends.cuda.matmul):
        assert operation.fp32_precision in {"none", "ieee"}
