"""The teacher as a folder: `model.safetensors` and `teacher.json`, read by the cache stage."""

import os
from pathlib import Path

import safetensors.torch
import torch

from teachonce.core import (
    arithmetic,
    config,
    errors,
    files,
    hashing,
    model_hub,
    sealed_files,
    seeding,
    tensor_files,
    timm_models,
)
from teachonce.format import schema
from teachonce.teacher import pretrained_weights, teacher_config

WEIGHTS = "model.safetensors"
IDENTITY = "teacher.json"
_MAKE = sealed_files.Refusal(errors.ConfigError, "Make it: dvc repro teacher; or restore it: dvc checkout teacher")


def build_network(
    settings: teacher_config.TeacherConfig, num_classes: int, *, where: Path = teacher_config.FOLDER
) -> torch.nn.Module:
    """The network with the weights its configuration names; for `fit`, freshly initialised.

    Args:
        settings: which network, and whose weights.
        num_classes: of its head.
        where: file of the settings, for the message.

    Raises:
        ConfigError: timm does not know the architecture, or it takes no images of this size, or the weights do not
            fit it, or cannot be fetched.
    """
    key = f"{where}: architecture"
    if isinstance(settings.weights, teacher_config.TrainedWeights):
        seeding.seed_torch("teacher", settings.weights.seed)
    pretrained = settings.weights.kind == "pretrained"
    model_hub.require_reachable(key, settings.architecture, pretrained=pretrained)
    network = timm_models.create_network(
        key, settings.architecture, settings.arguments, num_classes, pretrained=pretrained
    )
    timm_models.require_input_size(key, settings.architecture, network, settings.size, num_classes)
    if isinstance(settings.weights, teacher_config.CheckpointWeights):
        pretrained_weights.load_into(
            network, pretrained_weights.read(settings.weights), settings.weights.match, settings.weights.path
        )
    return network


def save(
    folder: Path, network: torch.nn.Module, settings: teacher_config.TeacherConfig, classes: tuple[str, ...]
) -> schema.Teacher:
    """Write the teacher's files into a folder and give its identity."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    files.write_bytes(folder / WEIGHTS, safetensors.torch.save(state))
    identity = schema.Teacher(
        architecture=settings.architecture,
        arguments=settings.arguments,
        weights_sha256=hashing.sha256_file(folder / WEIGHTS),
        size=settings.size,
        mean=settings.mean,
        std=settings.std,
        precision=settings.precision,
        num_classes=len(classes),
        classes_sha256=schema.classes_sha256(classes),
    )
    sealed_files.write_with_digest(folder / IDENTITY, identity.model_dump(mode="json"))
    return identity


def read_identity(folder: Path) -> schema.Teacher:
    """What `save` wrote about the teacher; its weights are not looked at.

    Raises:
        ConfigError: the folder holds no readable teacher, or what it says was changed.
    """
    path = folder / IDENTITY
    return config.parse(sealed_files.read_with_digest(path, _MAKE), schema.Teacher, str(path))


def load(folder: Path, device: torch.device) -> torch.nn.Module:
    """The network, ready to answer; from here on float32 is exact in this process (`arithmetic.use_exact_float32`).

    Raises:
        ConfigError: the weights are not those of the identity beside them, or not of the network that it names.
    """
    arithmetic.use_exact_float32()
    known, path = read_identity(folder), folder / WEIGHTS
    data = sealed_files.read_verified(path, known.weights_sha256, "", _MAKE)
    tensors = tensor_files.load(data, path, _MAKE)
    key = f"{folder / IDENTITY}: architecture"
    described = timm_models.NetworkSpec(key, known.architecture, known.arguments, known.num_classes, known.size)
    model_hub.require_reachable(key, known.architecture, pretrained=False)
    timm_models.require_matching_weights(described, tensors, path, _MAKE)
    network = timm_models.create_network(key, known.architecture, known.arguments, known.num_classes)
    network.load_state_dict(tensors)
    del data, tensors  # before the device needs room
    network.to(device).to(memory_format=torch.channels_last)
    return network.eval()


def default_device() -> torch.device:
    """The first CUDA device where there is one and CUDA_VISIBLE_DEVICES allows it, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def available_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))
