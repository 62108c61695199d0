"""The teacher as a folder: `model.safetensors` and `teacher.json`, read by the cache stage."""

import json
import os
from pathlib import Path

import safetensors.torch
import timm
import torch

from pipeline.base import arithmetic, errors, files, hashing, seeding
from pipeline.base import config as base_config
from pipeline.cache import schema
from pipeline.teacher import config, weights

WEIGHTS = "model.safetensors"
IDENTITY = "teacher.json"


def build(settings: config.TeacherConfig, num_classes: int) -> torch.nn.Module:
    """The network with the weights its configuration names; for `fit`, freshly initialised.

    Raises:
        ConfigError: timm does not know the architecture, or the weights do not fit it.
    """
    if isinstance(settings.weights, config.Fit):
        seeding.seed_torch("teacher", settings.weights.seed)
    network = _create(
        settings.architecture, dict(settings.arguments), num_classes, pretrained=settings.weights.kind == "pretrained"
    )
    if isinstance(settings.weights, config.Checkpoint):
        weights.load_into(network, weights.read(settings.weights), settings.weights.match, settings.weights.path)
    return network


def _create(
    architecture: str, arguments: dict[str, int | float | str | bool], num_classes: int, *, pretrained: bool
) -> torch.nn.Module:
    try:
        network = timm.create_model(architecture, pretrained=pretrained, num_classes=num_classes, **arguments)  # type: ignore[arg-type]
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise errors.ConfigError(
            f"teacher.architecture: timm cannot make {architecture} ({reason}). See timm.list_models()"
        ) from error
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"{architecture} is not a module")
    return network


def save(
    folder: Path, network: torch.nn.Module, settings: config.TeacherConfig, classes: tuple[str, ...]
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
    files.write_json(folder / IDENTITY, identity.model_dump(mode="json"))
    return identity


def identity(folder: Path) -> schema.Teacher:
    """What `save` wrote about the teacher; its weights are not looked at.

    Raises:
        ConfigError: the folder holds no readable teacher.
    """
    path = folder / IDENTITY
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise errors.ConfigError(f"{path}: cannot be read ({error}). Make it: dvc repro teacher") from error
    return base_config.parse(data, schema.Teacher, str(path))


def load(folder: Path, device: torch.device) -> torch.nn.Module:
    """The network, ready to answer; from here on float32 is exact in this process (`arithmetic.exact_float32`).

    Raises:
        ConfigError: the weights are not those of the identity beside them.
    """
    arithmetic.exact_float32()
    known = identity(folder)
    try:
        found = hashing.sha256_file(folder / WEIGHTS)
    except OSError as error:
        raise errors.ConfigError(
            f"{folder / WEIGHTS}: cannot be read ({error.strerror}). Make it: dvc repro teacher"
        ) from error
    if found != known.weights_sha256:
        raise errors.ConfigError(
            errors.refusal(folder / WEIGHTS, "sha256", known.weights_sha256, found, "Restore it: dvc checkout teacher")
        )
    network = _create(known.architecture, dict(known.arguments), known.num_classes, pretrained=False)
    weights.load_into(network, safetensors.torch.load_file(folder / WEIGHTS), "name", str(folder / WEIGHTS))
    network.to(device).to(memory_format=torch.channels_last)
    return network.eval()


def device() -> torch.device:
    """The first CUDA device where there is one and CUDA_VISIBLE_DEVICES allows it, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))
