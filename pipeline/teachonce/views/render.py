"""A drawn view becomes pixels: integers only, and this package's own, so that no CPU and no library decides a byte.

Shapes: C channels, H height, W width.
"""

import math

import numpy as np
import numpy.typing as npt

from teachonce.views import draw, operations

Pixels = npt.NDArray[np.uint8]

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside."""


def to_pixels(image_HWC: Pixels, params: draw.ViewParams, size: int, out_CHW: Pixels | None = None) -> Pixels:
    """Render a view: uint8 (3, size, size), C-contiguous.

    Differs: the resize looks a filter's width beyond the crop's border where torchvision first cuts the crop out; the
    erased box holds uniform bytes where timm has normal numbers after normalisation.

    Args:
        image_HWC: the decoded image, uint8 (H, W, 3), any size from 1 × 1.
        params: from `draw.view_params`.
        size: side of the view in pixels.
        out_CHW: where the view is to be written, as a batch's place for it; None for an array of its own.

    Raises:
        ValueError: the image is not RGB, size is below 1, or the place is of another shape.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or not image_HWC.size:
        raise ValueError(f"image must be RGB, uint8 (H, W, 3). Got {image_HWC.dtype} {image_HWC.shape}")
    if size < 1:
        raise ValueError(f"size must be > 0. Got {size}")
    if out_CHW is None:
        out_CHW = np.empty((3, size, size), np.uint8)
    elif out_CHW.dtype != np.uint8 or out_CHW.shape != (3, size, size) or not out_CHW.flags.c_contiguous:
        raise ValueError(f"out must be uint8 (3, {size}, {size}), C-contiguous. Got {out_CHW.dtype} {out_CHW.shape}")
    canvas = operations.Canvas(out_CHW, params)
    # In the order of `Policy`: another order would give other pixels for one draw.
    canvas.resize(image_HWC, source_box(image_HWC.shape[1], image_HWC.shape[0], params), mirrored=params.flip)
    if params.affine is not None:
        canvas.map_affine(params.affine)
    for operation in params.operations:
        canvas.apply(operation)
    canvas.finish()
    if params.erase is not None:
        _erase(out_CHW, params.erase)
    return out_CHW


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


def _erase(pixels_CHW: np.ndarray, erase: draw.ErasedBox) -> None:
    left, top, right, bottom = erased_box(erase, pixels_CHW.shape[1])
    shape = (3, bottom - top, right - left)
    count = math.prod(shape)
    # NumPy promises that Philox's raw output stays as it is, but not what its distributions make of it.
    words = np.random.Philox(key=erase.noise_key).random_raw(-(-count // 8))
    # Bytes in one order on any machine.
    noise = words.astype("<u8", copy=False).view(np.uint8)[:count]
    pixels_CHW[:, top:bottom, left:right] = noise.reshape(shape)
