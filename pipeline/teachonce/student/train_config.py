"""Which DeiT a student is, and how it is trained: `configs/student/*.yaml`."""

from typing import Literal

import pydantic

from teachonce.core import config

OPERATIONAL = frozenset({"workers", "launcher", "checkpoint_every"})
"""Fields that say how a run is carried out, not what comes out: a run goes on with other values of them."""


class Launcher(config.Model):
    """Training processes of this machine, one a GPU: `train` starts them with torchrun."""

    processes: int = pydantic.Field(ge=1)
    """How many; lanes must be a multiple of processes × workers."""
    max_restarts: int = pydantic.Field(default=0, ge=0)
    """How often all of them start again from the last checkpoint after one has died."""


class TrainConfig(config.Model):
    """A DeiT and how it is trained; the same for every kind of distillation, so that students compare."""

    architecture: str
    """timm's model without a distillation token, for students that have none."""
    distilled_architecture: str
    """timm's model with class and distillation token."""
    arguments: config.TimmArguments = pydantic.Field(default={})
    """Further arguments of `timm.create_model`, the same for both."""
    size: int = pydantic.Field(ge=8, le=4096)
    """Side of the square input in pixels."""
    mean: config.Means
    """Subtracted from pixels scaled to 0…1."""
    std: config.Deviations
    """Divides what is left."""
    epochs: int = pydantic.Field(ge=1)
    """Length of the run."""
    epoch: Literal["images", "views"] = "images"
    """images: an epoch is a pass over all images, each with all of the policy's repeats; views: an epoch has as many
    views as there are images, as DeiT counts, so that a pass takes as many epochs as there are repeats."""
    batch_size: int = pydantic.Field(ge=1)
    """Views of a step, over all processes: a multiple of lanes × repeats, and of twice that where the policy mixes."""
    lanes: int = pydantic.Field(default=4, ge=1)
    """Streams a pass is cut into; any count of loader workers that divides it gives the same order of samples."""
    buffer: int = pydantic.Field(default=1000, ge=1)
    """Images, or pairs of them where the policy mixes, that each lane shuffles among."""
    workers: int = pydantic.Field(default=0, ge=0)
    """Loader processes of a training process; 0 loads in it, which suits small images on few cores."""
    accumulate: int = pydantic.Field(default=1, ge=1)
    """Parts in which a training process puts its share of a batch through the network: less memory, the same
    gradient."""
    launcher: Launcher | None = None
    """Several training processes; by default this one alone."""
    checkpoint_every: int = pydantic.Field(default=1000, ge=1)
    """Steps between two checkpoints; there is one at the end of each pass too."""
    lr: config.PeakRate
    """Peak learning rate of AdamW, for a batch of `lr_batch` where that is given."""
    lr_batch: int | None = pydantic.Field(default=None, ge=1)
    """Views of the batch that `lr` is for: the peak grows in step with batch_size, `lr` × batch_size / lr_batch. DeiT's
    is 512. By default `lr` is the peak, whatever the batch."""
    min_lr: config.Rate = 1e-5
    """Where the cosine ends; not scaled."""
    warmup_lr: config.Rate = 1e-6
    """Where the linear warm-up begins; not scaled."""
    warmup_epochs: int = pydantic.Field(default=5, ge=0)
    """Length of the warm-up."""
    weight_decay: config.Decay = 0.05
    """AdamW's; not applied to biases, norms, tokens and positions."""
    smoothing: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Smoothing of the ground-truth label."""
    drop_path: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Stochastic depth of the last block; earlier ones less, linearly."""
    ema_decay: float = pydantic.Field(default=0.99996, ge=0, lt=1)
    """Of the average of weights that is evaluated; warms up from 0."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass; weights stay float32."""
    compile: bool = False
    """Whether the network is compiled (torch.compile): quicker steps on a GPU, after a minute at the start. It rounds
    otherwise, so that it is part of what a run is of."""
    deterministic: bool = True
    """Whether a GPU adds in one order, so that a run that was killed ends as one that was not, to the bit. Quicker
    without; a CPU always does."""
    log_every: int = pydantic.Field(default=20, ge=1)
    """Steps between two points of the curves."""

    @pydantic.field_validator("arguments")
    @classmethod
    def _has_no_second_drop_path(cls, value: dict[str, object]) -> dict[str, object]:
        if "drop_path_rate" in value:
            raise ValueError("drop_path_rate is set by drop_path")
        return value

    @pydantic.model_validator(mode="after")
    def _divides(self) -> "TrainConfig":
        if self.batch_size % self.lanes:
            raise ValueError(f"batch_size must be a multiple of lanes, {self.lanes}")
        if self.workers and self.lanes % self.workers:
            raise ValueError(f"lanes must be a multiple of workers, {self.workers}")
        # Here as well as before a run, where ranks are counted: `check` refuses it without starting a process.
        streams = max(1, self.workers) * (self.launcher.processes if self.launcher else 1)
        if self.lanes % streams:
            raise ValueError(f"lanes must be a multiple of launcher.processes × workers, {streams}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs, {self.epochs}")
        if self.peak_lr > 1:
            raise ValueError(f"lr × batch_size / lr_batch must be at most 1, not {self.peak_lr:g}")
        return self

    def timm_name(self, *, has_token: bool) -> str:
        """Name of the model in timm, with a distillation token or without."""
        return self.distilled_architecture if has_token else self.architecture

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of the warm-up.

        Source: Goyal et al. 2017 (arXiv 1706.02677), the linear rule; facebookresearch/deit `main.py`, which scales
        neither end of the schedule.
        """
        return self.lr if self.lr_batch is None else self.lr * self.batch_size / self.lr_batch
