"""The integers of the kernels by NumPy alone: slower by an order of magnitude, and the same bytes.

A cache outlives compilers: where none is at hand, this renders. Each function has the name and arguments of the kernel
that it stands for.

Shapes: C channels, H and W of an image or a view, S side of the view, K taps, R rows of a strip.
"""

import numpy as np
import numpy.typing as npt

from teachonce.views.kernels import Bytes, Longs, Shorts

_STRIP_NUMBERS = 1 << 22
"""Most numbers between the axes that are held at once, unless a row has more."""


def resize(image_HWC: Bytes, box: tuple[int, int, int, int], options: tuple[bool, bool], out_CHW: Bytes) -> None:
    """The box (left, top, right, bottom) of an image as a square; options: bicubic or bilinear, mirrored or not."""
    size = out_CHW.shape[1]
    left, top, right, bottom = box
    cubic, mirrored = options
    pixels_SK, weights_SK = _windows((top, bottom), image_HWC.shape[0], size, cubic)
    across = _windows((left, right), image_HWC.shape[1], size, cubic)
    # By strips of R rows: all rows of a wide and low image would fill the memory.
    count = max(1, _STRIP_NUMBERS // image_HWC[0].size)
    for y in range(0, size, count):
        strip = slice(y, y + count)
        # Multiples of 2^-6 levels between the axes, not cut to levels.
        down_RWC = _weighted(image_HWC, (pixels_SK[strip], weights_SK[strip]), 8)
        across_SRC = _clipped(_weighted(down_RWC.swapaxes(0, 1), across, 20))
        out_CHW[:, strip] = (across_SRC[::-1] if mirrored else across_SRC).transpose(2, 1, 0)


def _windows(box: tuple[int, int], extent: int, size: int, cubic: bool) -> tuple[Longs, Longs]:
    """For each pixel of the view along an axis the pixels of its window (S, K), within the image, and their weights."""
    start, length = box[0], box[1] - box[0]
    widest = max(length, size)
    reach = (4 if cubic else 2) * widest
    middle_S = (2 * np.arange(size, dtype=np.int64) + 1) * length
    first_S = np.maximum(start + (middle_S - reach + size) // (2 * size), 0)
    end_S = np.minimum(start + (middle_S + reach + size) // (2 * size), extent)
    pixels_SK = first_S[:, None] + np.arange((end_S - first_S).max())
    distances_SK = np.abs((2 * (pixels_SK - start) + 1) * size - middle_S[:, None])
    values_SK = _filter_values((distances_SK * 65536 + widest) // (2 * widest), cubic)
    values_SK[pixels_SK >= end_S[:, None]] = 0
    sums_SK = values_SK.cumsum(axis=1)
    # Running sums are rounded, not weights: so the weights of a window add up to exactly 2^14.
    total_S1 = sums_SK[:, -1:]
    weights_SK = np.diff(((sums_SK << 15) + total_S1) // (2 * total_S1), axis=1, prepend=0)
    return np.minimum(pixels_SK, extent - 1), weights_SK


def _filter_values(distances: Longs, cubic: bool) -> Longs:
    if not cubic:
        return np.maximum(65536 - distances, 0) << 4
    near = (3 * distances - 5 * 65536) * distances * distances + (2 << 48)
    far = ((5 * 65536 - distances) * distances - (8 << 32)) * distances + (4 << 48)
    exact = np.where(distances < 65536, near, np.where(distances < 131072, far, 0))
    return (exact + (1 << 28)) >> 29


def _weighted(rows: Bytes | Longs, windows: tuple[Longs, Longs], bits: int) -> Longs:
    """Sums of rows by their weights, of which the lowest bits are rounded off."""
    pixels_SK, weights_SK = windows
    total: Longs = np.full((len(pixels_SK), *rows.shape[1:]), 1 << (bits - 1), np.int64)
    for pixels_S, weights_S in zip(pixels_SK.T, weights_SK.T, strict=True):
        total += weights_S[:, None, None] * rows[pixels_S]
    return total >> bits


def _clipped(levels: npt.NDArray[np.integer]) -> Bytes:
    return levels.clip(0, 255).astype(np.uint8)


def warp(
    view_CHW: Bytes,
    matrix: tuple[int, int, int, int, int, int],
    phases: Shorts,
    fill: tuple[int, int, int],
    out_CHW: Bytes,
) -> None:
    """Each pixel of `out_CHW` from where an affine map finds it in the view.

    Rows of the matrix are two numbers of 2^-20 and one of 2^-21 pixels.
    """
    size = view_CHW.shape[1]
    a, b, c, d, e, f = matrix
    middles = 2 * np.arange(size, dtype=np.int64) + 1
    across_HW = a * middles + b * middles[:, None] + c
    down_HW = d * middles + e * middles[:, None] + f
    inside_HW = (across_HW >= 0) & (across_HW < size << 21) & (down_HW >= 0) & (down_HW < size << 21)
    # In 2^-21 pixels from the middle of the first pixel, to be rounded to 2^-10.
    across, down = (points[inside_HW] - (1 << 20) + (1 << 10) for points in (across_HW, down_HW))
    across_4, down_4 = (phases[(points >> 11) & 1023].T.astype(np.int64) for points in (across, down))
    total: Longs = np.full((3, len(across)), 1 << 19, np.int64)
    for k in range(4):
        row = ((down >> 21) + k - 1).clip(0, size - 1)
        columns = [((across >> 21) + j - 1).clip(0, size - 1) for j in range(4)]
        level = sum(view_CHW[:, row, column] * weight for column, weight in zip(columns, across_4, strict=True))
        total += (level >> 8) * down_4[k]
    out_CHW[:] = np.array(fill, np.uint8)[:, None, None]
    out_CHW[:, inside_HW] = _clipped(total >> 20)


def slide_rows(
    view_CHW: Bytes, motion: tuple[int, int], phases: Shorts, fill: tuple[int, int, int], out_CHW: Bytes
) -> None:
    """What `warp` makes where rows move along themselves."""
    warp(view_CHW, (1 << 20, motion[0], motion[1], 0, 1 << 20, 0), phases, fill, out_CHW)


def slide_columns(
    view_CHW: Bytes, motion: tuple[int, int], phases: Shorts, fill: tuple[int, int, int], out_CHW: Bytes
) -> None:
    """What `warp` makes where columns move along themselves."""
    warp(view_CHW, (1 << 20, 0, 0, motion[0], 1 << 20, motion[1]), phases, fill, out_CHW)


def count_levels(view_CHW: Bytes) -> Longs:
    """How many pixels of each channel have each level: (3, 256)."""
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in view_CHW]).astype(np.int64)


def _grey_levels(view_CHW: Bytes) -> Longs:
    red, green, blue = view_CHW.astype(np.int64)
    grey_HW: Longs = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return grey_HW


def sum_grey(view_CHW: Bytes) -> int:
    """Of all pixels."""
    return int(_grey_levels(view_CHW).sum())


def apply_tables(view_CHW: Bytes, tables: Bytes) -> None:
    """Each level by its channel's table, in place: (3, 256)."""
    for channel, table in zip(view_CHW, tables, strict=True):
        channel[:] = table[channel]


def saturate(view_CHW: Bytes, factor: int) -> None:
    """Move each pixel from its grey by a factor of 2^-12, in place."""
    grey_HW = _grey_levels(view_CHW)
    view_CHW[:] = _clipped((4096 * grey_HW + factor * (view_CHW - grey_HW)) >> 12)


def sharpen(view_CHW: Bytes, factor: int, out_CHW: Bytes) -> None:
    """Move each pixel from the smoothed one by a factor of 2^-12; the border stays as it is."""
    out_CHW[:] = view_CHW
    wide = view_CHW.astype(np.int64)
    middle = wide[:, 1:-1, 1:-1]
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * middle
    smooth = (2 * total + 13) // 26
    out_CHW[:, 1:-1, 1:-1] = _clipped((4096 * smooth + factor * (middle - smooth)) >> 12)


def mix(view_CHW: Bytes, other_CHW: Bytes, weight: int) -> None:
    """The weighted sum of two views in place of the first; its weight in 2^-12, halves up."""
    total = weight * view_CHW.astype(np.int64) + (4096 - weight) * other_CHW.astype(np.int64)
    view_CHW[:] = (total + 2048) >> 12
