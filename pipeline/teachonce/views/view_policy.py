"""What a view may do to an image, as data: YAML → `Policy` → canonical JSON in the cache.

Every field but the renderer has a default that means "as before", so that the JSON of an older cache still parses to
an equal policy after a field is added. A view runs in this order: crop, centre or whole image → square of the rendered
size → flip → affine → colour jitter → RandAugment → erase → mix with the view of another image.
"""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from teachonce.core import config


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("must be [low, high] with low at most high")
    return pair


Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Fractions = Annotated[tuple[Fraction, Fraction], AfterValidator(_ordered)]
_Positive = Annotated[float, Field(ge=0.01, le=100)]
Ratios = Annotated[tuple[_Positive, _Positive], AfterValidator(_ordered)]
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]

GREY: Colour = (128, 128, 128)

RENDERER = 2
"""Version of the arithmetic in `render`, `operations` and `kernels`: any other gives other pixels for the same draw."""


class RandomResizedCrop(config.Model):
    """A box of random area and aspect, resized to the square.

    Source: Szegedy et al. 2015 (arXiv 1409.4842) §6; the ten tries and the fall-back are torchvision's.
    """

    scale: Fractions = (0.08, 1.0)
    """Least and greatest area of the box, as a fraction of the image's."""
    ratio: Ratios = (0.75, 1.3333333333333333)
    """Least and greatest width / height of the box, uniform in its logarithm."""


class ColorJitter(config.Model):
    """Brightness, contrast and saturation, each scaled by a random factor, in random order. Source: torchvision."""

    brightness: Annotated[float, Field(ge=0, le=10)] = 0.0
    """b draws the factor from [max(0, 1 − b), 1 + b]; 0 leaves brightness alone."""
    contrast: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Of contrast, as `brightness`."""
    saturation: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Of saturation, as `brightness`."""


class RandAugment(config.Model):
    """A few operations drawn with replacement from timm's list of fifteen; the defaults are `rand-m9-mstd0.5-inc1`.

    Source: Cubuk et al. 2019 (arXiv 1909.13719); list, levels and noise of the magnitude as in timm.
    """

    operations: Annotated[int, Field(ge=1, le=15)] = 2
    """How many operations are drawn for a view."""
    probability: Probability = 0.5
    """Chance of each drawn operation to be applied."""
    magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    """Mean strength, 10 being the strongest."""
    std: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Standard deviation of the normal strength, which is then clamped to [0, 10]."""
    increasing: bool = True
    """Whether every operation grows more severe with the strength; false is timm's older scale."""
    fill: Colour = GREY
    """Red, green, blue of what a shear, shift or turn uncovers; DeiT takes the mean of its images."""


class Affine(config.Model):
    """A turn, shift, scaling and horizontal shear about the centre, bilinear. Source: torchvision's RandomAffine."""

    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Turn, uniform in ± this angle."""
    translate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Shift along x and along y, uniform in ± this fraction of the side; not rounded to pixels."""
    scale: Ratios = (1.0, 1.0)
    """Least and greatest magnification, uniform."""
    shear: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Angle of the shear in degrees, uniform in ± this angle."""
    fill: Colour = GREY
    """Red, green, blue of what is uncovered."""


class RandomErasing(config.Model):
    """A box overwritten with noise. Source: Zhong et al. 2017 (arXiv 1708.04896), with timm's ten tries, mode pixel."""

    probability: Probability = 0.25
    """Chance of a view to be erased."""
    scale: Fractions = (0.02, 0.33)
    """Least and greatest area of the box, as a fraction of the view's."""
    ratio: Ratios = (0.3, 3.3)
    """Least and greatest height / width of the box, uniform in its logarithm."""


class MixupCutmix(config.Model):
    """Two images in one view: their weighted sum (mixup), or one with a box of the other (cutmix).

    Source: Zhang et al. 2017 (arXiv 1710.09412), Yun et al. 2019 (arXiv 1905.04899); both with a switch, as in timm.
    Differs: every view draws its own weight and box where timm draws one for a whole batch.
    """

    mixup_alpha: Annotated[float, Field(ge=0, le=100)] = 0.8
    """The view's own weight is drawn from Beta(a, a); 0 never sums."""
    cutmix_alpha: Annotated[float, Field(ge=0, le=100)] = 1.0
    """The part of the view outside the box is drawn from Beta(a, a); 0 never cuts."""
    probability: Probability = 1.0
    """Chance of a view to be mixed."""
    switch_probability: Probability = 0.5
    """Chance of cutmix where both are allowed."""

    @model_validator(mode="after")
    def _require_kind_of_mix(self) -> Self:
        if not self.mixup_alpha and not self.cutmix_alpha:
            raise ValueError("must have mixup_alpha or cutmix_alpha above 0; leave mix out to mix nothing")
        return self


class Policy(config.Model):
    """All of a view's transforms. At most one of crop and center; with neither the whole image becomes the square."""

    # Stored in every cache: a field may join with a default that changes no pixel. To rename one, or to change what one
    # means, is to make all caches those of another policy.
    crop: RandomResizedCrop | None = None
    """Part of the image that becomes the view, drawn at random."""
    center: Fraction | None = None
    """Side of the centred square that is kept, as a fraction of the image's shorter side; 1 keeps the largest."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Filter of the resize, and of RandAugment's shears, shifts and turns."""
    flip: Probability = 0.0
    """Chance of a horizontal flip."""
    affine: Affine | None = None
    """Small geometric change after the resize."""
    color_jitter: ColorJitter | None = None
    """Random brightness, contrast and saturation."""
    rand_augment: RandAugment | None = None
    """Operations drawn at random; None for none."""
    erase: RandomErasing | None = None
    """Box of noise in the view; None for none."""
    mix: MixupCutmix | None = None
    """Mixup and cutmix. Rows of a tar are paired anew for each block of `repeats` aug seeds."""
    repeats: Annotated[int, Field(ge=1, le=64)] = 1
    """Views of an image that meet in one batch, under consecutive aug seeds: a block. 3 is DeiT's repeated
    augmentation. Source: Hoffer et al. 2020 (arXiv 1901.09335), Berman et al. 2019 (arXiv 1902.05509)."""
    renderer: Annotated[int, Field(ge=0)] = RENDERER
    """Version of the arithmetic that makes the pixels; only the default can be rendered. 0, which an older cache
    means by leaving it out, is that of the Pillow which was installed."""

    @model_validator(mode="after")
    def _require_one_frame(self) -> Self:
        if self.crop is not None and self.center is not None:
            raise ValueError("must have crop or center, not both; with neither the whole image is resized")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_first_renderer(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        # So that the digest of an older cache's recipe stays what it was.
        data: dict[str, object] = handler(self)
        return data if self.renderer else {name: value for name, value in data.items() if name != "renderer"}


def _current(policy: Policy) -> Policy:
    if policy.renderer != RENDERER:
        raise ValueError(f"renderer must be {RENDERER}, that of this release; leave it out")
    return policy


CurrentPolicy = Annotated[Policy, AfterValidator(_current)]
"""The policy of a configuration, whose views are rendered here: a later release may know a later renderer."""


def _as_stored(policy: Policy, info: ValidationInfo) -> Policy:
    if info.mode != "json":
        return policy
    if "renderer" not in policy.model_fields_set:
        return policy.model_copy(update={"renderer": 0})
    if policy.renderer == 0:
        # Written, it would have another digest than left out, for the same views.
        raise ValueError("renderer must be at least 1, or left out")
    return policy


StoredPolicy = Annotated[Policy, AfterValidator(_as_stored)]
"""The policy of a store: where its JSON names no renderer, it is from before there were several."""


def center_crop(center: float = 0.875) -> Policy:
    """The policy without chance, as used for validation: one view an image, whatever the augmentation seed."""
    return Policy(center=center)
