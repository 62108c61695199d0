"""The network that a fine-tuning begins with: published weights, and a new head for the classes here."""

import torch

from teachonce.core import model_hub, seeding, timm_models
from teachonce.teacher import new_head, pretrained_weights, teacher_config, torchvision_weights


def build_network(
    settings: teacher_config.TeacherConfig, weights: teacher_config.FinetunedWeights, num_classes: int, where: str
) -> torch.nn.Module:
    """The network with the weights to start from; its head is drawn at random.

    Args:
        settings: which network.
        weights: whose weights, and the seed of the head.
        num_classes: of the head.
        where: file of the settings, for the message of a refusal.

    Raises:
        ConfigError: timm does not know the architecture, or it takes no images of this size, or the weights do not
            fit it, or cannot be fetched.
    """
    key, start = f"{where}: architecture", weights.start
    pretrained = isinstance(start, teacher_config.TimmWeights)
    match = ""
    if isinstance(start, teacher_config.TorchvisionWeights):
        match = torchvision_weights.name_matching(start, settings, where)
    model_hub.require_reachable(key, settings.architecture, pretrained=pretrained)
    # Weights are drawn from torch's global generator: seeded right before, they are the same however much was drawn
    # from it until here.
    seeding.seed_torch("teacher", weights.seed)
    network = timm_models.create_network(
        key, settings.architecture, settings.arguments, num_classes, pretrained=pretrained
    )
    timm_models.require_input_size(key, settings.architecture, network, settings.size, num_classes)
    new_head.require_head(network, key, settings.architecture)
    if isinstance(start, teacher_config.CheckpointWeights):
        new_head.load_body(network, pretrained_weights.read(start), start.match, start.path)
    elif isinstance(start, teacher_config.TorchvisionWeights):
        new_head.load_body(network, torchvision_weights.read(start, where), match, start.name)
    else:
        # Where there are as many classes as it was trained for, timm keeps the head; they need not be the same.
        seeding.seed_torch("teacher head", weights.seed)
        network.reset_classifier(num_classes)  # type: ignore[operator]
    return network
