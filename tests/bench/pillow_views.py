"""Views by Pillow, as renderer 0 made them: what the differences and the times of `bench_render` are taken from.

With Pillow 13.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from teachonce.views import draw, hash_stream, render

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


_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def to_pixels(image: Image.Image, params: draw.ViewParams, size: int) -> np.ndarray:
    """Render a view: uint8 (3, size, size), C-contiguous.

    Differs: the resize looks a filter's width beyond the crop's border where torchvision first cuts the crop out; the
    erased box holds uniform bytes where timm has normal numbers after normalisation.

    Args:
        image: the decoded image, mode RGB, any size from 1×1.
        params: from `draw.view_params`.
        size: side of the view in pixels.

    Raises:
        ValueError: the image is not RGB, or size is below 1.
    """
    if image.mode != "RGB":
        raise ValueError(f"image must be RGB. Got mode {image.mode}")
    # Crop and resize in one step, then in the order of `Policy`: another order would give other pixels for one draw.
    resample = _RESAMPLE[params.interpolation]
    view = image.resize((size, size), resample, box=render.source_box(image.width, image.height, params))
    if params.flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if params.affine is not None:
        view = _warp(view, params.affine)
    for operation in params.operations:
        view = apply_by_name(view, operation.name, operation.argument, fill=params.fill, resample=resample)
    pixels_CHW = np.asarray(view).transpose(2, 0, 1).copy()
    if params.erase is not None:
        render._erase(pixels_CHW, params.erase)
    return pixels_CHW


def _warp(view: Image.Image, affine: draw.AffineMap) -> Image.Image:
    a, b, c, d = affine.matrix
    center = view.width / 2
    x, y = center + affine.shift[0] * view.width, center + affine.shift[1] * view.width
    # On the grid every product and sum of the lookup is exact in float64, so that a CPU that fuses multiply and add,
    # and rounds once instead of twice, takes the same pixels.
    right = hash_stream.round_to_grid(center - a * x - b * y, draw.MATRIX_BITS)
    down = hash_stream.round_to_grid(center - c * x - d * y, draw.MATRIX_BITS)
    return view.transform(
        view.size,
        Image.Transform.AFFINE,
        (a, b, right, c, d, down),
        resample=Image.Resampling.BILINEAR,
        fillcolor=affine.fill,
    )
