"""Whether a GPU adds in one order: then a run that is repeated is the same run, to the bit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.utils.deterministic

from teachonce.core import errors


@contextmanager
def deterministic_kernels(device: torch.device, *, always: bool) -> Iterator[None]:
    """Work of which a GPU makes no other sums another time; around a student's step, and nothing else.

    By default some kernels let blocks add as they come, attention's backward pass above all. On a CPU none does.

    Args:
        device: where.
        always: False takes whatever is quickest.

    Raises:
        ConfigError: the network has a part that knows no such form.
    """
    if device.type != "cuda" or not always:
        yield
        return
    # Without it torch refuses matrix products: cuBLAS, which reads it at its start, may choose among workspaces.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    # Only what reads memory that it never wrote would differ.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic implementation" not in str(error):
            raise
        part, cure = str(error).partition(" does not have")[0], "Set it, or choose another architecture"
        condition = f"false for a network with {part}, which adds in any order"
        raise errors.ConfigError.for_value("student", "deterministic", condition, "true", cure) from error
    finally:
        torch.use_deterministic_algorithms(mode=before)
