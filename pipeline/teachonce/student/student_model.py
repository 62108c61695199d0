"""timm's DeiT, with or without a distillation token."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from teachonce.core import errors, files, model_hub, sealed_files, seeding, tensor_files, timm_models
from teachonce.student import student_config

EMA = student_config.EMA
RAW = "raw/model.safetensors"
"""The weights themselves, in a folder of their own: timm 1.0.26 reads no folder with two such files."""
RECORD = "record.json"


def build(settings: student_config.StudentConfig, student: student_config.Student, num_classes: int) -> torch.nn.Module:
    """A student with fresh weights that depend on its seed alone.

    Raises:
        ConfigError: timm does not know the architecture or its arguments, or it takes no images of this size.
    """
    seeding.seed_torch("student", student.seed)
    described = _described(settings, student, num_classes)
    key, name = described.where, described.name
    model_hub.require_reachable(key, name, pretrained=False)
    built = timm_models.create_network(key, name, described.arguments, num_classes)
    timm_models.require_input_size(key, name, built, settings.size, num_classes)
    if student.has_token:
        if not hasattr(built, "set_distilled_training"):
            raise errors.ConfigError.for_value(
                "student",
                "distilled_architecture",
                "a timm model with a distillation token",
                name,
                "See timm.list_models('*distilled*')",
            )
        built.set_distilled_training(enable=True)  # type: ignore[operator]
    return built


def _described(
    settings: student_config.StudentConfig, student: student_config.Student, num_classes: int
) -> timm_models.NetworkSpec:
    field = "distilled_architecture" if student.has_token else "architecture"
    arguments = {**settings.arguments, "drop_path_rate": settings.drop_path}
    return timm_models.NetworkSpec(f"student.{field}", getattr(settings, field), arguments, num_classes, settings.size)


def heads(network: torch.nn.Module, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits of the class head and, where there is one, of the distillation head, in training or evaluation mode.

    timm averages the two heads outside training; here both are wanted.
    """
    tokens = network.forward_features(images_B3HW)  # type: ignore[operator]
    if not hasattr(network, "head_dist"):
        return network.forward_head(tokens), None  # type: ignore[operator]
    return network.head(tokens[:, 0]), network.head_dist(tokens[:, 1])  # type: ignore[operator]


def save(
    folder: Path,
    weights: Mapping[str, torch.nn.Module],
    settings: student_config.StudentConfig,
    student: student_config.Student,
    num_classes: int,
) -> None:
    """Write weights by file name, and a `config.json` from which timm loads `model.safetensors` as `local-dir:`."""
    for name, network in weights.items():
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
        files.write_bytes(folder / name, safetensors.torch.save(state))
    files.write_json(
        folder / "config.json",
        {
            "architecture": settings.distilled_architecture if student.has_token else settings.architecture,
            "num_classes": num_classes,
            "model_args": dict(settings.arguments),
            "pretrained_cfg": {
                "num_classes": num_classes,
                "input_size": [3, settings.size, settings.size],
                "mean": list(settings.mean),
                "std": list(settings.std),
            },
        },
    )


def load(
    weights: bytes,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    num_classes: int,
    *,
    where: Path,
) -> torch.nn.Module:
    """The averaged weights, ready to answer.

    Args:
        weights: the safetensors file, verified.
        settings: its model.
        student: whether it has a token.
        num_classes: of its heads.
        where: the student's folder, for the message.

    Raises:
        DataError: they are another model's.
    """
    path, refusal = where / EMA, sealed_files.Refusal(errors.DataError, "Restore it: dvc checkout, or dvc repro train")
    state = tensor_files.load(weights, path, refusal)
    timm_models.require_matching_weights(_described(settings, student, num_classes), state, path, refusal)
    network = build(settings, student, num_classes)
    network.load_state_dict(state)
    return network.eval()
