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
from teachonce.student import student_model, student_record, student_spec

_POSITIONS = "pos_embed"
_DIST = "dist_token"
_HEADS = ("head.", "head_dist.")
_OTHER_MODEL = sealed_files.Refusal(
    errors.ConfigError, "Start from a student of the same model: only its size and its classes may be others"
)


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """Another student's weights, to begin with."""

    path: Path
    """The file that they were read from."""
    sha256: str
    """Of its bytes."""
    tensors: dict[str, Tensor]
    """What it holds, by timm's names."""
    same_classes: bool
    """Whether its heads answer for this student's classes."""

    def record(self) -> student_record.StartRecord:
        """What the weights of a run depend on, and its record tells."""
        return student_record.StartRecord(sha256=self.sha256, heads="kept" if self.same_classes else "fresh")


def read(spec: student_spec.StartFile, classes: tuple[str, ...], *, by_place: bool) -> InitialWeights:
    """The weights that a student's entry names.

    Args:
        spec: where they are.
        classes: of this student.
        by_place: whether classes of other names are the same ones where there are as many.

    Raises:
        ConfigError: there is no such file, it is not the one named, or it is no safetensors file.
    """
    path = spec.file()
    try:
        data, sha256 = sealed_files.read_and_hash(path, spec.sha256)
    except (OSError, ValueError) as error:
        condition, cure = "a student's folder or a safetensors file", "Train that student first, or correct the path"
        reason = error.strerror if isinstance(error, OSError) else error
        raise errors.ConfigError.for_value(path, "start.path", condition, reason, cure) from error
    if sha256 != spec.sha256:
        cure = "Write this one in params.yaml if these weights are meant; else restore the others: dvc checkout"
        raise errors.ConfigError.for_value(path, "start.sha256", spec.sha256, sha256, cure)
    state = tensor_files.load(data, path, sealed_files.Refusal(errors.ConfigError, "Save it as safetensors"))
    recorded = None if by_place else _classes_sha256(path, sha256)
    as_many = "head.bias" in state and state["head.bias"].shape == (len(classes),)
    return InitialWeights(path, sha256, state, as_many and recorded in {None, schema.classes_sha256(classes)})


def _classes_sha256(weights: Path, sha256: str) -> str | None:
    """The class names of a student, from the record of these weights; None where none is there."""
    beside = weights.with_name(student_record.NAME)
    is_raw = weights.parts[-2:] == Path(student_model.RAW).parts
    # Beside the average; a folder above weights that are not averaged.
    path = weights.parent.with_name(student_record.NAME) if is_raw and not beside.exists() else beside
    if not path.exists() and not path.is_symlink():
        return None
    refusal = sealed_files.Refusal(errors.ConfigError, "Restore it, or remove it")
    record = student_record.read_record(path, refusal)
    if sha256 not in {record.weights_sha256, record.raw_weights_sha256}:
        raise refusal.mismatch(path, "weights_sha256", f"that of {weights}, {sha256}", record.weights_sha256)
    return record.cache.teacher.classes_sha256


def load(network: torch.nn.Module, initial: InitialWeights) -> None:
    """Put the weights into a network; where they are of other classes, its heads stay as they are.

    Raises:
        ConfigError: they are another model's, or not all of their numbers are finite.
    """
    # A copy of the map: heads and positions are replaced in it, and the weights that were read stay as they were.
    fresh, state = network.state_dict(), dict(initial.tensors)
    if (_DIST in fresh) != (_DIST in state):
        condition, token = ("with", "false") if _DIST in fresh else ("without", "true")
        raise errors.ConfigError.for_value(
            initial.path,
            "start",
            f"a student {condition} a distillation token, as this one",
            "another",
            f"Set token: {token}, or start from another one",
        )
    if not initial.same_classes:
        state |= {name: tensor for name, tensor in fresh.items() if name.startswith(_HEADS)}
    if _POSITIONS in fresh and _POSITIONS in state:
        prefix = network.num_prefix_tokens
        # Before they are computed with.
        tensor_files.require_compatible_tensor(
            _POSITIONS, state[_POSITIONS], fresh[_POSITIONS], initial.path, _OTHER_MODEL
        )
        state[_POSITIONS] = _fit_positions(state[_POSITIONS], fresh[_POSITIONS], prefix)  # type: ignore[arg-type]
    tensor_files.require_state_dict(state, fresh, initial.path, _OTHER_MODEL)
    network.load_state_dict(state)


def _fit_positions(old_1ND: Tensor, fresh_1ND: Tensor, prefix: int) -> Tensor:
    """Positions for this student's grid; those of its tokens, which have no place in it, are kept."""
    if old_1ND.shape == fresh_1ND.shape or old_1ND.shape[::2] != fresh_1ND.shape[::2]:
        return old_1ND
    old_side, side = (math.isqrt(max(0, tensor.shape[1] - prefix)) for tensor in (old_1ND, fresh_1ND))
    if not old_side or old_side**2 != old_1ND.shape[1] - prefix:
        return old_1ND
    return torch.cat([old_1ND[:, :prefix], resize_positions(old_1ND[:, prefix:].float(), side)], dim=1)


def resize_positions(old_1PD: Tensor, side: int) -> Tensor:
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
