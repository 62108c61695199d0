"""RandAugment's fifteen operations on an image, by name. They are what a view promises, so they stand here.

Source: timm `data/auto_augment.py`, after Cubuk et al. 2019 (arXiv 1909.13719); `magnitudes` makes their arguments.
Differs: posterize at eight bits and more, which keeps all, is left to Pillow.
"""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageOps

_SOLARIZE_ADD_BELOW = 128


@dataclass(frozen=True, slots=True)
class _Canvas:
    """How an operation that moves pixels fills what it uncovers."""

    fill: tuple[int, int, int]
    resample: Image.Resampling

    def affine(self, image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
        """Look each pixel up at a·x + b·y + c, d·x + e·y + f."""
        transform = Image.Transform.AFFINE
        return image.transform(image.size, transform, matrix, resample=self.resample, fillcolor=self.fill)

    def rotate(self, image: Image.Image, degrees: float) -> Image.Image:
        """Turn about the centre, counter-clockwise."""
        return image.rotate(degrees, resample=self.resample, fillcolor=self.fill)


def _solarize_add(image: Image.Image, addend: float) -> Image.Image:
    table = [min(255, value + int(addend)) if value < _SOLARIZE_ADD_BELOW else value for value in range(256)]
    return image.point(table * 3)


_WITHOUT_ARGUMENT: dict[str, Callable[[Image.Image], Image.Image]] = {
    "AutoContrast": ImageOps.autocontrast,
    "Equalize": ImageOps.equalize,
    "Invert": ImageOps.invert,
}
_POINTWISE: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "Solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "SolarizeAdd": _solarize_add,
    "Color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "Contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "Brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "Sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
}
_MOVING: dict[str, Callable[[Image.Image, float, _Canvas], Image.Image]] = {
    "Rotate": lambda image, degrees, canvas: canvas.rotate(image, degrees),
    "ShearX": lambda image, slope, canvas: canvas.affine(image, (1, slope, 0, 0, 1, 0)),
    "ShearY": lambda image, slope, canvas: canvas.affine(image, (1, 0, 0, slope, 1, 0)),
    # Fractions of the side, not pixels: teacher and student, each at its size, see one geometry.
    "TranslateXRel": lambda image, part, canvas: canvas.affine(image, (1, 0, part * image.width, 0, 1, 0)),
    "TranslateYRel": lambda image, part, canvas: canvas.affine(image, (1, 0, 0, 0, 1, part * image.height)),
}


def apply_by_name(
    image: Image.Image,
    name: str,
    argument: float | None,
    *,
    fill: tuple[int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """The image after one operation, of the same size and mode.

    Args:
        image: mode RGB.
        name: one of `magnitudes.OPERATIONS`.
        argument: as `magnitudes.operation_argument` makes it.
        fill: colour of what a move uncovers.
        resample: filter of a move.

    Raises:
        KeyError: there is no such operation.
    """
    if argument is None:
        return _WITHOUT_ARGUMENT[name](image)
    if name in _POINTWISE:
        return _POINTWISE[name](image, argument)
    return _MOVING[name](image, argument, _Canvas(fill, resample))
