"""The record of the stage `evaluate`: what it says of a student."""

from typing import Literal

import pydantic

from teachonce.core import config


class Knobs(config.Model):
    """What tells one student from another in params.yaml."""

    model: str
    """File name in configs/student, without the ending."""
    kind: Literal["none", "soft", "hard"]
    """Kind of distillation."""
    alpha: float | None = None
    """Weight of the teacher's part of the loss."""
    tau: float | None = None
    """Temperature of soft distillation."""
    seed: int
    """Of initial weights, and of the order of the images."""
    token: bool
    """Whether it has a distillation token, and so two heads."""


class Accuracy(config.Model):
    """How often an answer is right, of the images that have a label; nothing where none has."""

    top1: float | None = pydantic.Field(default=None, ge=0, le=1)
    """Share of images whose label is the likeliest class."""
    top1_se: float | None = pydantic.Field(default=None, ge=0)
    """Standard error of top1."""
    top5: float | None = pydantic.Field(default=None, ge=0, le=1)
    """Share of images whose label is among the five likeliest; none with fewer than six classes or fewer kept."""


class HeadMetrics(Accuracy):
    """One way to read the student's answer."""

    agreement: float = pydantic.Field(ge=0, le=1)
    """Share of images on which it gives the teacher's class."""
    kl: float = pydantic.Field(ge=0)
    """Mean KL(teacher ‖ student) in nats at tau 1."""


class LayerCosine(config.Model):
    """How alike the two tokens are behind one layer, on average over the images."""

    layer: int = pydantic.Field(ge=0)
    """0 is the input of the first block, n the output of block n."""
    cosine: float
    """Mean cosine of class and distillation token."""


class PassAccuracy(config.Model):
    """How often a student was right on its way: a curve to look at, by which no weights were chosen."""

    passes: int = pydantic.Field(ge=1)
    """Passes over the training images that it had made, the last of them perhaps in part."""
    step: int = pydantic.Field(ge=1)
    """Steps that it had made."""
    top1: float = pydantic.Field(ge=0, le=1)
    """Share of the labelled validation images that its averaged weights of then get right."""


class SureError(config.Model):
    """A wrong answer that the student was sure of; where no image has a label, one that is not the teacher's."""

    row: int = pydantic.Field(ge=0)
    """Position of the image in the validation split."""
    answer: int = pydantic.Field(ge=0)
    """The class that it gave."""
    probability: float = pydantic.Field(ge=0, le=1)
    """How likely it held that class."""


class Evaluation(config.Model):
    """All that is measured of one student, with the digests of what was measured."""

    format: Literal[1] = 1
    """Version of this record's fields."""
    student: Knobs
    """Its settings in params.yaml."""
    architecture: str
    """timm's name of the model."""
    weights_sha256: config.Sha256
    """SHA-256 of the weights that answered, as in the student's record."""
    predictions_sha256: config.Sha256
    """SHA-256 of the file of its predictions."""
    parameters: int
    """Count of single weights, of body and heads together."""
    images: int = pydantic.Field(ge=1)
    """How many validation images were answered."""
    unlabelled: int = pydantic.Field(default=0, ge=0)
    """How many of them have no label: top1 and top5 leave these out."""
    classes: int = pydantic.Field(ge=2)
    """Count of classes, of both the student and the data."""
    heads: dict[str, HeadMetrics]
    """By `class`, `dist`, `both`, `sum_softmax`."""
    teacher: Accuracy
    """Accuracy of the teacher, from the store of the validation images."""
    token_cosine: tuple[LayerCosine, ...]
    """Empty for a student without a distillation token."""
    accuracy_by_pass: tuple[PassAccuracy, ...] = ()
    """Of the weights that training kept on its way, and last of those that are evaluated; the answer that stands for
    the student. Empty without labels, or where training kept none."""
    surest_errors: tuple[SureError, ...] = ()
    """Of the answer that stands for the student, of both heads where it has two; surest first."""
    accepted: tuple[str, ...]
    """Refusals of the cache, in training or here, that the student went on in spite of."""
