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
    """Those of a safetensors file, by name.

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
    if (total := sum(member.file_size for member in members)) > len(data):
        raise ValueError(f"its members claim {total:,} bytes, more than the file has")


def require_state_dict(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, refusal: sealed_files.Refusal
) -> None:
    """Refuse tensors that are not a network's: all of them and nothing else, of its shapes, each number finite.

    Args:
        tensors: of the file, by name.
        wanted: the network's, with memory or without.
        path: the file, for the message.
        refusal: how it is refused.

    Raises:
        TeachonceError: the first that is missing, left over, or another.
    """
    for what, names in (("lacks", wanted.keys() - tensors.keys()), ("has the unknown", tensors.keys() - wanted.keys())):
        if names:
            count = f"{len(names)} such tensors"
            raise refusal.error(path, f"{what} {errors.shorten(min(names))} ({count})", refusal.cure)
    for name, tensor in wanted.items():
        require_compatible_tensor(name, tensors[name], tensor, path, refusal)
        expected, actual = tuple(tensor.shape), tuple(tensors[name].shape)
        if actual != expected:
            raise refusal.mismatch(path, f"shape of {name}", str(expected), actual)
        # As the network will hold it: a float64 may be too large for that.
        if not tensors[name].to(tensor.dtype).isfinite().all():
            raise refusal.mismatch(path, name, "finite throughout", "a number that is not")


def require_compatible_tensor(
    name: str, tensor: Tensor, wanted: Tensor, path: Path, refusal: sealed_files.Refusal
) -> None:
    """Refuse a tensor whose numbers are not there as they are, or of another kind: torch would cast it in silence.

    Raises:
        TeachonceError: it is sparse, quantized, without memory, or not of a type that `wanted` can take.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        kind = "quantized" if tensor.is_quantized else f"{tensor.layout} on {tensor.device}"
        raise refusal.mismatch(path, f"form of {name}", "dense, on the CPU", kind)
    same_kind = next((kind for kind in (_FLOATING, _INTEGER) if wanted.dtype in kind), {wanted.dtype})
    if tensor.dtype not in same_kind:
        types = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in same_kind))
        raise refusal.mismatch(path, f"type of {name}", f"one of {types}", str(tensor.dtype).removeprefix("torch."))
