"""How a process computes: one place for the flags of torch that change rounding."""

import os

import torch
import torch.utils.deterministic


def exact_float32() -> None:
    """Let float32 be float32 on a GPU too, in all that this process computes from here on.

    By default torch has convolutions round their factors to the ten bits of TF32. Without effect on a CPU, and on
    bfloat16. By the `allow_tf32` flags, since setting the newer `fp32_precision` makes reading these raise (torch 2.11
    to 2.15), and torch and its compiler still read them.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def one_order(*, always: bool) -> None:
    """Have a GPU add in one order, so that a run repeated is the same run to the bit: of all that follows.

    By default some kernels let blocks add as they come, attention's backward pass above all.

    Args:
        always: refuse what has no such form (torch raises); False takes whatever is quickest again.
    """
    # Without it torch refuses matrix products: cuBLAS, which reads it at its start, may choose among workspaces.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=always)
    # Only what reads memory that it never wrote would differ.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
