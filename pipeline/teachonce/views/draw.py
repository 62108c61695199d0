"""Chance made definite: (policy, key, augmentation seed) → `ViewParams`, without looking at the image.

A pure function of its arguments. Lengths are fractions, so that one draw renders at the teacher's size and at the
student's with the same geometry. Each named decision reads its own stream at fixed places: adding a transform, or a
part of one, never shifts another's draw.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from statistics import NormalDist

from teachonce.core import errors
from teachonce.views import hash_stream, magnitudes
from teachonce.views.view_policy import RENDERER, Affine, ColorJitter, Colour, Policy, RandAugment, RandomErasing

TRIES = 10
"""Boxes tried by random resized crop and by random erasing before they give up, as in torchvision and timm."""

MATRIX_BITS = 16
"""Grid of the matrix that is drawn for an affine map."""

MAP_BITS = 20
"""Grid of the numbers by which a map is rendered."""

_RATIO_BITS = 20
_LEVEL_BITS = 20
_REMAKE = "Make the cache again: dvc repro cache"
_NORMAL = NormalDist()
_MIN_UNIFORM = 2.0**-53


@dataclass(frozen=True, slots=True)
class CropCandidates:
    """Candidate boxes of a crop; the first that fits is taken, else the largest centred one of an allowed ratio.

    Boxes are drawn when asked for: the first one or two nearly always fit.
    """

    key: str
    aug_seed: int
    scale: tuple[float, float]
    """Least and greatest area of a box, as a fraction of the image's."""
    ratio: tuple[float, float]
    """Least and greatest width / height."""

    def tries(self) -> Iterator[tuple[float, float, float, float]]:
        """Boxes as (area as a fraction of the image's, width / height, place along x, place along y in [0, 1))."""
        low, span = self.scale[0], self.scale[1] - self.scale[0]
        log_low, log_span = _log_range(self.ratio)
        for pair in range(TRIES // 2):
            uniforms = hash_stream.uniforms(f"crop.{pair}", self.key, self.aug_seed)
            # Two boxes of a hash, which has eight uniforms: most views need the first one alone.
            for first in (0, 4):
                # Where C libraries differ in the last digit of exp, a box could be a pixel wider on another machine.
                ratio = hash_stream.round_to_grid(math.exp(log_low + log_span * uniforms[first + 1]), _RATIO_BITS)
                yield low + span * uniforms[first], ratio, uniforms[first + 2], uniforms[first + 3]


@dataclass(frozen=True, slots=True)
class AffineMap:
    """Where a pixel of the view comes from: source = matrix · (target − centre − shift) + centre."""

    matrix: tuple[float, float, float, float]
    """Two rows of two, multiples of 2^-16."""
    shift: tuple[float, float]
    """Along x and y, as fractions of the side."""
    fill: Colour


@dataclass(frozen=True, slots=True)
class Operation:
    """One of timm's image operations with its argument; see `magnitudes.operation_argument`."""

    name: str
    argument: float | None


@dataclass(frozen=True, slots=True)
class ErasedBox:
    """A box of the view, as fractions of its side, and the 128-bit key of the noise that fills it."""

    left: float
    top: float
    width: float
    height: float
    noise_key: int


@dataclass(frozen=True, slots=True)
class ViewParams:
    """All that `render.to_pixels` needs besides the image and the size."""

    crop: CropCandidates | None
    center: float | None
    interpolation: str
    flip: bool
    affine: AffineMap | None
    operations: tuple[Operation, ...]
    """Colour jitter's, then RandAugment's, in the order in which they run."""
    fill: Colour
    """Red, green, blue of what RandAugment's operations uncover."""
    erase: ErasedBox | None


def view_params(policy: Policy, key: str, aug_seed: int) -> ViewParams:
    """Draw all decisions of one view, whatever its image and size.

    Args:
        policy: the transforms.
        key: the sample's key.
        aug_seed: the augmentation seed.

    Raises:
        IdentityError: the policy is of another renderer, which would make other pixels of the draw.
    """
    if policy.renderer != RENDERER:
        # Refused earlier where the store is known by name; here so that no way of rendering forgets it.
        raise errors.IdentityError.for_value(
            "the views", "policy.renderer", f"{RENDERER}, the renderer of this release", policy.renderer, _REMAKE
        )
    augment = policy.rand_augment
    operations: list[Operation] = []
    if policy.color_jitter is not None:
        operations += _color_jitter(policy.color_jitter, key, aug_seed)
    # Jitter before RandAugment, as the policy says: these do not commute.
    if augment is not None:
        operations += _rand_augment(augment, key, aug_seed)
    return ViewParams(
        crop=None if policy.crop is None else CropCandidates(key, aug_seed, policy.crop.scale, policy.crop.ratio),
        center=policy.center,
        interpolation=policy.interpolation,
        flip=policy.flip > 0 and hash_stream.uniforms("flip", key, aug_seed)[0] < policy.flip,
        affine=None if policy.affine is None else _affine(policy.affine, key, aug_seed),
        operations=tuple(operations),
        fill=(0, 0, 0) if augment is None else augment.fill,
        erase=None if policy.erase is None else _erase(policy.erase, key, aug_seed),
    )


def _log_range(ratio: tuple[float, float]) -> tuple[float, float]:
    low = math.log(ratio[0])
    return low, math.log(ratio[1]) - low


def _affine(affine: Affine, key: str, aug_seed: int) -> AffineMap:
    # Places in a stream are for ever: a part that is added later takes the next one, and shifts none of these.
    turn, right, down, zoom, slant, *_ = hash_stream.uniforms("affine", key, aug_seed)
    inverse = affine_inverse(
        degrees=affine.degrees * (2 * turn - 1),
        scale=affine.scale[0] + (affine.scale[1] - affine.scale[0]) * zoom,
        shear=affine.shear * (2 * slant - 1),
    )
    shift = (affine.translate * (2 * right - 1), affine.translate * (2 * down - 1))
    return AffineMap(matrix=inverse, shift=shift, fill=affine.fill)


def affine_inverse(degrees: float, scale: float, shear: float) -> tuple[float, float, float, float]:
    """The inverse of (turn · shear · scale), row by row: a view is filled by asking where its pixels come from.

    Args:
        degrees: of the turn.
        scale: magnification.
        shear: angle of the horizontal shear in degrees.
    """
    angle, slope = math.radians(degrees), math.tan(math.radians(shear))
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    a, b, c, d = [
        hash_stream.round_to_grid(value, MATRIX_BITS) for value in (cos - slope * sin, sin + slope * cos, -sin, cos)
    ]
    return a, b, c, d


def pixel_map(affine: AffineMap, size: int) -> tuple[int, int, int, int, int, int]:
    """The map at a size: row by row two numbers of 2^-20, and one of 2^-21 pixels."""
    one = 1 << MAP_BITS
    # Magnified less than a millionth, a view is one pixel of its source or outside it: int64 need hold no more.
    a, b, c, d = (min(max(int(value * one), -(1 << 40)), 1 << 40) for value in affine.matrix)
    x, y = (size * (one + 2 * round(part * one)) for part in affine.shift)
    # The centre of the source, less where the shifted centre would be looked up.
    right, down = (size * one - ((p * x + q * y + one // 2) // one) for p, q in ((a, b), (c, d)))
    return a, b, right, c, d, down


def rotation(degrees: float) -> tuple[int, int]:
    """Cosine and sine of an angle, as multiples of 2^-20."""
    angle = math.radians(degrees)
    cos, sin = (hash_stream.round_to_grid(value, MAP_BITS) for value in (math.cos(angle), math.sin(angle)))
    return int(cos * (1 << MAP_BITS)), int(sin * (1 << MAP_BITS))


def _color_jitter(jitter: ColorJitter, key: str, aug_seed: int) -> list[Operation]:
    uniforms = hash_stream.uniforms("color_jitter", key, aug_seed)
    drawn = []
    for place, (name, strength) in enumerate(
        (("Brightness", jitter.brightness), ("Contrast", jitter.contrast), ("Color", jitter.saturation))
    ):
        if strength > 0:
            low = max(0.0, 1 - strength)
            factor = hash_stream.round_to_grid(low + (1 + strength - low) * uniforms[place], magnitudes.FACTOR_BITS)
            drawn.append((uniforms[3 + place], Operation(name, factor)))
    # Sorting by uniforms gives every order the same chance, and leaving one part out keeps the order of the others.
    return [operation for _, operation in sorted(drawn, key=itemgetter(0))]


def _rand_augment(augment: RandAugment, key: str, aug_seed: int) -> list[Operation]:
    operations = []
    for layer in range(augment.operations):
        # A stream for each layer: whoever asks for more operations keeps the first ones as they were.
        choice, chance, strength, sign, *_ = hash_stream.uniforms(f"rand_augment.{layer}", key, aug_seed)
        if chance >= augment.probability:
            continue
        name = magnitudes.OPERATIONS[int(choice * len(magnitudes.OPERATIONS))]
        # The normal by its inverse, since no library promises that its own draws stay; 0 has no inverse, the next
        # uniform has.
        noise = hash_stream.round_to_grid(_NORMAL.inv_cdf(max(strength, _MIN_UNIFORM)), _LEVEL_BITS)
        level = min(max(augment.magnitude + augment.std * noise, 0.0), magnitudes.MAX_LEVEL)
        argument = magnitudes.operation_argument(name, level, negate=sign < 0.5, increasing=augment.increasing)
        operations.append(Operation(name, argument))
    return operations


def _erase(erase: RandomErasing, key: str, aug_seed: int) -> ErasedBox | None:
    if hash_stream.uniforms("erase", key, aug_seed)[0] >= erase.probability:
        return None
    log_low, log_span = _log_range(erase.ratio)
    for attempt in range(TRIES):
        uniforms = hash_stream.uniforms(f"erase.{attempt}", key, aug_seed)
        area = erase.scale[0] + (erase.scale[1] - erase.scale[0]) * uniforms[0]
        ratio = hash_stream.round_to_grid(math.exp(log_low + log_span * uniforms[1]), _RATIO_BITS)
        # No grid for square roots: unlike exp and log, IEEE 754 has them rounded alike everywhere.
        width, height = math.sqrt(area / ratio), math.sqrt(area * ratio)
        # The view is square, so whether a box fits does not depend on its size: one box serves all sizes.
        if width < 1 and height < 1:
            # A key instead of noise, which is made at each size from the beginning of one stream.
            noise_key = hash_stream.bits128("erase.noise", key, aug_seed)
            return ErasedBox(uniforms[2] * (1 - width), uniforms[3] * (1 - height), width, height, noise_key)
    return None
