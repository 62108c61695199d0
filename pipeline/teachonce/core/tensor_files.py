"""Tensors of a file, from bytes that were verified, and whether they are a network's: so many numbers and no others.

A digest says that a file is the one that was named, not that it is harmless.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from teachonce.core import errors, sealed_files

_ZIP = b"PK\x03\x04"
_FLOATING = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
"""Those that hold weights by themselves; narrower ones need scales that no network of timm has."""
_INTEGER = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def load(data: bytes, path: Path, refusal: sealed_files.Refusal) -> dict[str, Tensor]:
    """Tensors of a safetensors file, by name.

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
        raise refusal.error(path, f"is not a file of tensors ({error})", refusal.cure) from error
    return tensors


def unpickle_tensors(data: bytes) -> object:
    """What torch saved: tensors and plain data alone, in no more memory than the file's bytes.

    Raises:
        ValueError: it would unpack to more.
        Exception: torch lets the unpickler's errors through, and a cut file fails in any way.
    """
    # Before torch sees it: a few kilobytes of an archive can unpack to more than all memory.
    if data.startswith(_ZIP):
        _require_stored(data)
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _require_stored(data: bytes) -> None:
    """Refuse an archive that torch would unpack: it stores members as they are, and each once."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    packed = next((member.filename for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise ValueError(f"{errors.shorten(packed)} is compressed, which torch's own files are not")
    # Members that overlap in the file would be read once each: together they may not be longer than it.
    if (total := sum(member.file_size for member in members)) > len(data):
        raise ValueError(f"its members claim {total:,} bytes, more than the file has")


def require_state_dict(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, refusal: sealed_files.Refusal
) -> None:
    """Refuse tensors that are not a network's: all of them and nothing else, of its shapes, each number finite.

    Args:
        tensors: of the file, by name.
        expected: the network's own, of which shapes and types count; they may be without memory.
        path: the file, for the message.
        refusal: how it is refused.

    Raises:
        TeachonceError: the first that is missing, left over, or another.
    """
    for verb, names in (
        ("lacks", expected.keys() - tensors.keys()),
        ("has the unknown", tensors.keys() - expected.keys()),
    ):
        if names:
            count = f"{len(names)} such tensors"
            raise refusal.error(path, f"{verb} {errors.shorten(min(names))} ({count})", refusal.cure)
    for name, tensor in expected.items():
        require_compatible_tensor(name, tensors[name], tensor, path, refusal)
        shape, stored_shape = tuple(tensor.shape), tuple(tensors[name].shape)
        if stored_shape != shape:
            raise refusal.mismatch(path, f"shape of {name}", str(shape), stored_shape)
        # As the network will hold it: a float64 may be too large for that.
        if not tensors[name].to(tensor.dtype).isfinite().all():
            raise refusal.mismatch(path, name, "finite throughout", "a number that is not")


def require_compatible_tensor(
    name: str, tensor: Tensor, expected: Tensor, path: Path, refusal: sealed_files.Refusal
) -> None:
    """Refuse a tensor whose numbers are not there as they are, or of another kind: torch would cast it in silence.

    Args:
        name: of the tensor, for the message.
        tensor: that of the file.
        expected: that of the network.
        path: the file, for the message.
        refusal: how it is refused.

    Raises:
        TeachonceError: it is sparse, quantized, without memory, or not of a type that `expected` can take.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        kind = "quantized" if tensor.is_quantized else f"{tensor.layout} on {tensor.device}"
        raise refusal.mismatch(path, f"form of {name}", "dense, on the CPU", kind)
    same_kind = next((kind for kind in (_FLOATING, _INTEGER) if expected.dtype in kind), {expected.dtype})
    if tensor.dtype not in same_kind:
        types = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in same_kind))
        raise refusal.mismatch(path, f"type of {name}", f"one of {types}", str(tensor.dtype).removeprefix("torch."))
