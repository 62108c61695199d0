"""timm's DeiT, with or without a distillation token."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from teachonce.core import errors, files, model_hub, sealed_files, seeding, tensor_files, timm_models
from teachonce.student import student_spec

EMA = student_spec.EMA
RAW = "raw/model.safetensors"
"""The weights themselves, in a folder of their own: timm 1.0.26 reads no folder with two such files."""


def create_model(student: student_spec.Student, num_classes: int) -> torch.nn.Module:
    """A student with fresh weights that depend on its seed alone.

    Raises:
        ConfigError: timm does not know the architecture or its arguments, or it takes no images of this size.
    """
    seeding.seed_torch("student", student.spec.seed)
    description = _describe(student, num_classes)
    key, name = description.where, description.name
    model_hub.require_reachable(key, name, pretrained=False)
    network = timm_models.create_network(key, name, description.arguments, num_classes)
    timm_models.require_input_size(key, name, network, student.config.size, num_classes)
    if student.spec.has_token:
        if not hasattr(network, "set_distilled_training"):
            raise errors.ConfigError.for_value(
                "student",
                "distilled_architecture",
                "a timm model with a distillation token",
                name,
                "See timm.list_models('*distilled*')",
            )
        network.set_distilled_training(enable=True)  # type: ignore[operator]
    return network


def _describe(student: student_spec.Student, num_classes: int) -> timm_models.NetworkSpec:
    config = student.config
    key = "distilled_architecture" if student.spec.has_token else "architecture"
    arguments = {**config.arguments, "drop_path_rate": config.drop_path}
    return timm_models.NetworkSpec(f"student.{key}", student.architecture, arguments, num_classes, config.size)


def head_logits(network: torch.nn.Module, images_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits of the class head and, where there is one, of the distillation head, in training or evaluation mode.

    timm averages the two heads outside training; here both are wanted.
    """
    tokens = network.forward_features(images_B3HW)  # type: ignore[operator]
    if not hasattr(network, "head_dist"):
        return network.forward_head(tokens), None  # type: ignore[operator]
    # Each head reads its own token: the class token stands first, the distillation token second.
    return network.head(tokens[:, 0]), network.head_dist(tokens[:, 1])  # type: ignore[operator]


def save(folder: Path, weights: Mapping[str, torch.nn.Module], student: student_spec.Student, num_classes: int) -> None:
    """Write weights, and a `config.json` from which timm loads `model.safetensors` as `local-dir:`.

    Args:
        folder: the student's, a draft of it.
        weights: networks by the name of their file.
        student: its model.
        num_classes: of its heads.
    """
    config = student.config
    # On the CPU and contiguous: bytes of a file are of the weights alone, not of the device or layout they were trained
    # in.
    for name, network in weights.items():
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
        files.write_bytes(folder / name, safetensors.torch.save(state))
    files.write_json(
        folder / "config.json",
        {
            "architecture": student.architecture,
            "num_classes": num_classes,
            "model_args": dict(config.arguments),
            "pretrained_cfg": {
                "num_classes": num_classes,
                "input_size": [3, config.size, config.size],
                "mean": list(config.mean),
                "std": list(config.std),
            },
        },
    )


def load(
    weights: bytes, student: student_spec.Student, num_classes: int, *, folder: Path, name: str = EMA
) -> torch.nn.Module:
    """A network of these weights, ready to answer.

    Args:
        weights: the safetensors file, verified.
        student: its model.
        num_classes: of its heads.
        folder: the student's, for the message.
        name: of the file in it, likewise.

    Raises:
        DataError: they are another model's.
    """
    path, refusal = (
        folder / name,
        sealed_files.Refusal(errors.DataError, "Restore it: dvc checkout, or dvc repro train"),
    )
    state = tensor_files.load(weights, path, refusal)
    timm_models.require_matching_weights(_describe(student, num_classes), state, path, refusal)
    network = create_model(student, num_classes)
    network.load_state_dict(state)
    return network.eval()
