"""Compare published weights with the network that the teacher's configuration names, before an image is looked at.

What was in order is remembered in the scratch folder, as networks are.
"""

from importlib import metadata
from pathlib import Path

from teachonce.check.project_configs import LoadedConfigs
from teachonce.core import errors, files, hashing
from teachonce.teacher import teacher_config

_ANY_CLASSES = 10
"""Of the head that a fine-tuning gives a network, however many the images have."""
_RULES_VERSION = 1
"""Raised with each new rule, so that what was in order by fewer rules is tried again."""


def try_weights(configs: LoadedConfigs, num_classes: int | None, trials_folder: Path) -> None:
    """Refuse weights of another network, of other classes, or that cannot be had.

    Args:
        configs: the configurations that could be read.
        num_classes: of the images; None as long as only the images can tell.
        trials_folder: remembers weights that were in order.

    Raises:
        ConfigError: the teacher stage would refuse them.
    """
    settings = configs.teacher
    weights = teacher_config.published_weights(settings) if settings else None
    classes = _ANY_CLASSES if settings and settings.weights.kind == "finetune" else num_classes
    if settings is None or weights is None or classes is None:
        return
    if isinstance(weights, teacher_config.CheckpointWeights) and not _is_as_named(weights):
        return  # `required_files` says what is wrong with it
    versions = {name: metadata.version(name) for name in ("timm", "torch", "torchvision")}
    trial = settings.model_dump(mode="json", include={"architecture", "arguments", "size"})
    trial |= {"weights": weights.model_dump(mode="json"), "classes": classes, **versions, "rules": _RULES_VERSION}
    path = trials_folder / f"{hashing.json_digest(trial)}.json"
    # Whether weights can be fetched is asked each time: a hub comes and goes.
    if path.is_file() and isinstance(weights, teacher_config.CheckpointWeights):
        return
    from teachonce.teacher import published_trial  # noqa: PLC0415 - imports torch and timm

    published_trial.require_usable(settings, classes, str(configs.path("teacher")))
    files.write_json(path, {"architecture": settings.architecture, "weights": weights.kind})


def _is_as_named(weights: teacher_config.CheckpointWeights) -> bool:
    try:
        path = teacher_config.checkpoint_path(weights.path)
        return path.is_file() and hashing.sha256_file(path) == weights.sha256
    except (errors.ConfigError, OSError):
        return False
