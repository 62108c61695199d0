"""Build the teacher that a configuration asks for, train it where asked, save it, and measure its accuracy."""

import re
from pathlib import Path

import torch

from teachonce.core import errors, outputs
from teachonce.shards import index
from teachonce.teacher import (
    finetune_start,
    predictor,
    teacher_accuracy,
    teacher_config,
    teacher_network,
    teacher_training,
)
from teachonce.views import view_policy

_KIND = outputs.FolderKind(
    "an earlier teacher", teacher_network.IDENTITY, b'"weights_sha256"', re.compile(re.escape(teacher_network.WEIGHTS))
)


def configured_weights(settings: teacher_config.TeacherConfig) -> Path | None:
    """The file that the weights are read from, where the configuration names one."""
    weights = teacher_config.published_weights(settings)
    return Path(weights.path) if isinstance(weights, teacher_config.CheckpointWeights) else None


def build_network(settings: teacher_config.TeacherConfig, num_classes: int, *, where: Path) -> torch.nn.Module:
    """The network with the weights that its training begins with, or with those it keeps.

    Args:
        settings: which network, and whose weights.
        num_classes: of its head.
        where: file of the settings, for the message of a refusal.

    Raises:
        ConfigError: the architecture or the weights are refused.
    """
    if isinstance(settings.weights, teacher_config.FinetunedWeights):
        return finetune_start.build_network(settings, settings.weights, num_classes, str(where))
    return teacher_network.build_network(settings, num_classes, where=where)


def create_and_measure(
    settings: teacher_config.TeacherConfig,
    shards: index.Shards,
    evaluation: view_policy.Policy,
    out: Path,
    scratch: Path,
    *,
    where: Path = teacher_config.FOLDER,
) -> dict[str, object]:
    """Build the network, train it where asked, save it into `out` and measure what was saved.

    Args:
        settings: which network and whose weights.
        shards: the images; their classes must be the network's.
        evaluation: the crop for the validation accuracy.
        out: the teacher's folder.
        scratch: parent of what a training saves meanwhile.
        where: file of the settings, for the message of a refusal.

    Returns:
        Facts for the metrics file; `val_top1` is that of the labelled images, left out where there are none.

    Raises:
        ConfigError: the architecture, the weights or the folder to write are refused.
        NumericsError: its training or its answers are not finite.
        StoppedError: a signal asked for it; all epochs that were done are saved.
    """
    output = outputs.Output(out, _KIND, (shards.base, configured_weights(settings)), (scratch,))
    output.require_replaceable()
    if len(shards.index.classes) < teacher_config.LEAST_CLASSES:
        condition, cure = "two or more, which a teacher can tell apart", "Add a class: configs/dataset, or source"
        raise errors.ConfigError.for_value(shards.base, "classes", condition, len(shards.index.classes), cure)
    device = teacher_network.default_device()
    network = build_network(settings, len(shards.index.classes), where=where)
    facts: dict[str, float] = {}
    if isinstance(settings.weights, teacher_config.LocalTraining):
        job = teacher_training.TrainingJob(settings, settings.weights, shards, evaluation, scratch, where)
        facts = teacher_training.train_network(network, job, device)
    with output.draft() as draft:
        identity = teacher_network.save(draft, network, settings, shards.index.classes)
        # Measured on what was saved: the numbers are those of the file. And before the rename: a teacher whose logits
        # are not finite does not replace an earlier one.
        teacher = predictor.Predictor(teacher_network.load(draft, device), identity, device)
        top1 = teacher_accuracy.top1_accuracy(
            teacher, shards, "val", size=settings.size, evaluation=evaluation, batch_size=settings.batch_size
        )
    return {
        "architecture": settings.architecture,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "val_images": shards.index.nsamples("val"),
        **({} if top1 is None else {"val_top1": top1}),
        **facts,
    }
