"""Fine-tuning: another student's weights to begin with, their positions fitted to this one's grid of patches.

Only the size of the images and the classes may be others than that student's; other classes get heads of their own.
Shapes: N positions, P those of patches, D width.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from teachonce.core import errors, sealed_files, tensor_files
from teachonce.format import schema
from teachonce.student import student_config, student_model, student_record

_POSITIONS = "pos_embed"
_DISTILLING = "dist_token"
_HEADS = ("head.", "head_dist.")
_OTHER = sealed_files.Refusal(
    errors.ConfigError, "Start from a student of the same model: only its size and its classes may be others"
)


@dataclass(frozen=True, slots=True)
class Start:
    """Weights to begin with."""

    path: Path
    """Their file."""
    sha256: str
    """Of its bytes."""
    tensors: dict[str, Tensor]
    """What it holds, by timm's names."""
    same_classes: bool
    """Whether its heads answer for this student's classes."""

    @property
    def facts(self) -> dict[str, str]:
        """What the weights of a run depend on, and its record tells."""
        return {"sha256": self.sha256, "heads": "kept" if self.same_classes else "fresh"}


def read(wanted: student_config.Start, classes: tuple[str, ...], *, by_place: bool) -> Start:
    """The weights that are named.

    Args:
        wanted: where they are.
        classes: of this student.
        by_place: whether classes of other names are the same ones where there are as many.

    Raises:
        ConfigError: there is no such file, it is not the one named, or it is no safetensors file.
    """
    path = student_config.weights_file(wanted)
    try:
        data, found = sealed_files.read_and_hash(path, wanted.sha256)
    except (OSError, ValueError) as error:
        condition, cure = "a student's folder or a safetensors file", "Train that student first, or correct the path"
        reason = error.strerror if isinstance(error, OSError) else error
        raise errors.ConfigError.for_value(path, "start.path", condition, reason, cure) from error
    if found != wanted.sha256:
        cure = "Write this one in params.yaml if these weights are meant; else restore the others: dvc checkout"
        raise errors.ConfigError.for_value(path, "start.sha256", wanted.sha256, found, cure)
    state = tensor_files.load(data, path, sealed_files.Refusal(errors.ConfigError, "Save it as safetensors"))
    named = None if by_place else _classes_sha256(path, found)
    as_many = "head.bias" in state and state["head.bias"].shape == (len(classes),)
    return Start(path, found, state, as_many and named in {None, schema.classes_sha256(classes)})


def _classes_sha256(weights: Path, sha256: str) -> str | None:
    """The class names of a student, from the record of these weights; None where none is there."""
    beside = weights.with_name(student_model.RECORD)
    raw = weights.parts[-2:] == Path(student_model.RAW).parts
    # Beside the average; a folder above weights that are not averaged.
    path = weights.parent.with_name(student_model.RECORD) if raw and not beside.exists() else beside
    if not path.exists() and not path.is_symlink():
        return None
    refusal = sealed_files.Refusal(errors.ConfigError, "Restore it, or remove it")
    record = student_record.record(path, refusal)
    if sha256 not in {record.weights_sha256, record.raw_weights_sha256}:
        raise refusal.mismatch(path, "weights_sha256", f"that of {weights}, {sha256}", record.weights_sha256)
    return record.cache.teacher.classes_sha256


def load(network: torch.nn.Module, start: Start) -> None:
    """Put the weights into a network; where they are of other classes, its heads stay as they are.

    Raises:
        ConfigError: they are another model's, or not all of their numbers are finite.
    """
    own, state = network.state_dict(), dict(start.tensors)
    if (_DISTILLING in own) != (_DISTILLING in state):
        condition, token = ("with", "false") if _DISTILLING in own else ("without", "true")
        raise errors.ConfigError.for_value(
            start.path,
            "start",
            f"a student {condition} a distillation token, as this one",
            "another",
            f"Set token: {token}, or start from another one",
        )
    if not start.same_classes:
        state |= {name: tensor for name, tensor in own.items() if name.startswith(_HEADS)}
    if _POSITIONS in own and _POSITIONS in state:
        prefix = network.num_prefix_tokens
        # Before they are computed with.
        tensor_files.require_compatible_tensor(_POSITIONS, state[_POSITIONS], own[_POSITIONS], start.path, _OTHER)
        state[_POSITIONS] = _fitted(state[_POSITIONS], own[_POSITIONS], prefix)  # type: ignore[arg-type]
    tensor_files.require_state_dict(state, own, start.path, _OTHER)
    network.load_state_dict(state)


def _fitted(found_1ND: Tensor, own_1ND: Tensor, prefix: int) -> Tensor:
    """Positions for this student's grid; those of its tokens, which have no place in it, are kept."""
    if found_1ND.shape == own_1ND.shape or found_1ND.shape[::2] != own_1ND.shape[::2]:
        return found_1ND
    before, after = (math.isqrt(max(0, tensor.shape[1] - prefix)) for tensor in (found_1ND, own_1ND))
    if not before or before**2 != found_1ND.shape[1] - prefix:
        return found_1ND
    return torch.cat([found_1ND[:, :prefix], positions(found_1ND[:, prefix:].float(), after)], dim=1)


def positions(old_1PD: Tensor, side: int) -> Tensor:
    """Positions of another square grid, as long as the neighbours they come from.

    Interpolated bicubic; then each vector is brought to the length that bilinear interpolation gives of the lengths of
    the old ones, which lies between theirs.

    Args:
        old_1PD: float32 (1, P, D).
        side: of the new grid.

    Source: Touvron et al. 2021 (arXiv 2012.12877), section 6, "Fine-tuning at different resolution": a vector shorter
        than its neighbours costs accuracy, hence "a bicubic interpolation that approximately preserves the norm".
        Bicubic as in facebookresearch/deit `main.py`, without the antialiasing of timm's own loading, which takes
        another kernel for larger grids too (a = −0.5, not −0.75).
    Differs: lengths are kept, not approximately.
    """
    resample = functools.partial(resample_abs_pos_embed, new_size=[side, side], num_prefix_tokens=0, antialias=False)
    directions_1PD = F.normalize(resample(old_1PD), dim=2)
    lengths_1P1 = resample(old_1PD.norm(dim=2, keepdim=True), interpolation="bilinear")
    return torch.mul(directions_1PD, lengths_1P1)
