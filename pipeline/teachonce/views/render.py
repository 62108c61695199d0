"""A drawn view becomes pixels: Pillow and integers only, so that every CPU gives the same bytes.

torch and torchvision kernels are kept out: their antialiased resize differs between instruction sets.

Shapes: C channels, H height, W width.
"""

import math

import numpy as np
from PIL import Image

from teachonce.views import draw, hash_stream, operations

_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside."""


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
    view = image.resize((size, size), resample, box=source_box(image.width, image.height, params))
    if params.flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if params.affine is not None:
        view = _warp(view, params.affine)
    for operation in params.operations:
        view = operations.apply_by_name(view, operation.name, operation.argument, fill=params.fill, resample=resample)
    pixels_CHW = np.asarray(view).transpose(2, 0, 1).copy()
    if params.erase is not None:
        _erase(pixels_CHW, params.erase)
    return pixels_CHW


def source_box(width_px: int, height_px: int, params: draw.ViewParams) -> Box:
    """The part of the image that becomes the view; it does not depend on the rendered size.

    Args:
        width_px: of the image.
        height_px: of the image.
        params: from `draw.view_params`.
    """
    if params.crop is not None:
        return _first_fit(width_px, height_px, params.crop)
    if params.center is not None:
        side = max(1, round(params.center * min(width_px, height_px)))
        return _centred(width_px, height_px, side, side)
    return 0, 0, width_px, height_px


def erased_box(params: draw.ErasedBox, size: int) -> Box:
    """The erased part of a view of this size."""
    left, top, right, bottom = (
        math.floor(edge * size + 0.5)
        for edge in (params.left, params.top, params.left + params.width, params.top + params.height)
    )
    return left, top, right, bottom


def _first_fit(width_px: int, height_px: int, crop: draw.CropCandidates) -> Box:
    for area, ratio, x, y in crop.tries():
        area_px = area * (width_px * height_px)
        width, height = round(math.sqrt(area_px * ratio)), round(math.sqrt(area_px / ratio))
        if 0 < width <= width_px and 0 < height <= height_px:
            # x is below 1, so that the last place has the chance of any other, and the box never leaves the image.
            left, top = int(x * (width_px - width + 1)), int(y * (height_px - height + 1))
            return left, top, left + width, top + height
    # All candidates may miss a very long image: torchvision's fall-back, so that no image is without a view.
    low, high = crop.ratio
    if width_px < low * height_px:
        return _centred(width_px, height_px, width_px, max(1, round(width_px / low)))
    if width_px > high * height_px:
        return _centred(width_px, height_px, max(1, round(height_px * high)), height_px)
    return 0, 0, width_px, height_px


def _centred(width_px: int, height_px: int, width: int, height: int) -> Box:
    left, top = (width_px - width) // 2, (height_px - height) // 2
    return left, top, left + width, top + height


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


def _erase(pixels_CHW: np.ndarray, erase: draw.ErasedBox) -> None:
    left, top, right, bottom = erased_box(erase, pixels_CHW.shape[1])
    shape = (3, bottom - top, right - left)
    count = math.prod(shape)
    # NumPy promises that Philox's raw output stays as it is, but not what its distributions make of it.
    words = np.random.Philox(key=erase.noise_key).random_raw(-(-count // 8))
    # Bytes in one order on any machine.
    noise = words.astype("<u8", copy=False).view(np.uint8)[:count]
    pixels_CHW[:, top:bottom, left:right] = noise.reshape(shape)
