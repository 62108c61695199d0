"""Whether published weights will do for a teacher, found out without memory for a network and without a download."""

import timm

from teachonce.core import errors, model_hub, timm_models
from teachonce.teacher import new_head, pretrained_weights, teacher_config, torchvision_weights


def require_usable(settings: teacher_config.TeacherConfig, num_classes: int, where: str) -> None:
    """Refuse weights that the teacher stage would refuse.

    Args:
        settings: the network and whose weights it gets.
        num_classes: of its head; any will do for a fine-tuning, whose head is new.
        where: file of the settings, for the message.

    Raises:
        ConfigError: the weights are of another network or other classes, or cannot be had.
    """
    weights = teacher_config.published_weights(settings)
    if isinstance(weights, teacher_config.TimmWeights):
        _require_published(settings.architecture, f"{where}: architecture")
        return
    key = f"{where}: architecture"
    network = timm_models.dry_run(key, settings.architecture, settings.arguments, num_classes, settings.size)
    is_finetuned = isinstance(settings.weights, teacher_config.FinetunedWeights)
    if is_finetuned:
        new_head.require_head(network, key, settings.architecture)
    if isinstance(weights, teacher_config.TorchvisionWeights):
        torchvision_weights.name_matching(weights, settings, where)
        torchvision_weights.require_reachable(weights, where)
    elif isinstance(weights, teacher_config.CheckpointWeights):
        take = new_head.pair_body if is_finetuned else pretrained_weights.pair
        take(network, pretrained_weights.read(weights), weights.match, weights.path)


def _require_published(architecture: str, key: str) -> None:
    """Refuse a network of which timm has no weights, or whose weights cannot be reached."""
    description = timm.get_pretrained_cfg(architecture) if ":" not in architecture else None
    if description is not None and not (description.hf_hub_id or description.url or description.file):
        raise errors.ConfigError(
            key, f"timm publishes no weights of {architecture}", "See timm.list_models(pretrained=True)"
        )
    model_hub.require_reachable(key, architecture, pretrained=True)
