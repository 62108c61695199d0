"""How a process computes: one place for the flags of torch that change rounding."""

import torch


def use_exact_float32() -> None:
    """Let float32 be float32 on a GPU too, in all that this process computes from here on.

    By default torch has convolutions round their factors to the ten bits of TF32. Without effect on a CPU, and on
    bfloat16. By the `allow_tf32` flags, since setting the newer `fp32_precision` makes reading these raise (torch 2.11
    to 2.15), and torch and its compiler still read them.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
