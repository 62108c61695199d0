"""Tensors of a safetensors file, from bytes that were verified."""

from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from teachonce.core import sealed_files


def load(data: bytes, path: Path, refusal: sealed_files.Refusal) -> dict[str, Tensor]:
    """By name.

    Args:
        data: the file's bytes.
        path: the file, for the message.
        refusal: how it is refused.

    Raises:
        TeachonceError: it is no safetensors file.
    """
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that this torch does not have
        raise refusal.error(f"{path}: is not a file of tensors ({error}). {refusal.cure}") from error
    return tensors
