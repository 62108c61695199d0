"""The teacher as a folder: `model.safetensors` and `teacher.json`, written by one stage and read by the next ones."""

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
        where: file of the settings, for the message of a refusal.

    Raises:
        ConfigError: timm does not know the architecture, or it takes no images of this size, or the weights do not
            fit it, or cannot be fetched.
    """
    key = f"{where}: architecture"
    # Initial weights come from torch's global generator: seeded right before they are drawn, they are the same however
    # much was drawn from it until here.
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
    """Write the teacher's files into a folder and give its identity.

    Args:
        folder: that exists; its files are replaced.
        network: whose weights are written.
        settings: architecture, input and precision, as they go into the identity.
        classes: names in label order; only their count and digest are written.
    """
    # A tensor in channels-last order, or a view of another one, is not what safetensors takes.
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
    identity, path = read_identity(folder), folder / WEIGHTS
    # Only the bytes that the identity names are parsed. The identity itself may come from anyone: the network that it
    # describes is tried without memory and compared with the tensors before it is built.
    data = sealed_files.read_verified(path, identity.weights_sha256, "", _MAKE)
    tensors = tensor_files.load(data, path, _MAKE)
    key = f"{folder / IDENTITY}: architecture"
    network_spec = timm_models.NetworkSpec(
        key, identity.architecture, identity.arguments, identity.num_classes, identity.size
    )
    model_hub.require_reachable(key, identity.architecture, pretrained=False)
    timm_models.require_matching_weights(network_spec, tensors, path, _MAKE)
    network = timm_models.create_network(key, identity.architecture, identity.arguments, identity.num_classes)
    network.load_state_dict(tensors)
    del data, tensors  # the network has copies of its own, and moving it to the device makes others
    network.to(device).to(memory_format=torch.channels_last)
    return network.eval()


def default_device() -> torch.device:
    """The first CUDA device where there is one and CUDA_VISIBLE_DEVICES allows it, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def available_cpus() -> int:
    """Count of processors that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0))
