"""A view moved by an affine map: turned, or its rows or columns slid along themselves.

Shapes: C channels, H and W of a view.
"""

import numpy as np

from teachonce.views.kernels import Bytes, Shorts, clip, transpose


def pad_edges(view_CHW: Bytes) -> Bytes:
    """The view with its outermost pixels repeated twice on every side."""
    size = view_CHW.shape[1]
    padded = np.empty((3, size + 4, size + 4), np.uint8)
    for c in range(3):
        for y in range(size + 4):
            row = view_CHW[c, min(max(y - 2, 0), size - 1)]
            for x in range(size):
                padded[c, y, x + 2] = row[x]
            padded[c, y, 0] = padded[c, y, 1] = row[0]
            padded[c, y, size + 2] = padded[c, y, size + 3] = row[size - 1]
    return padded


# Weights of a point sum to at most 1.5 · 2^14 in magnitude: a row's sum is below 255 · 1.5 · 2^14 < 2^23, that of
# four rows, in 2^-6 levels by 2^-14, below 255 · 64 · 1.5 · 1.5 · 2^14 + 2^19 < 2^30: all fit int32.
def weigh_four(row: Bytes, x: int, weights: Shorts) -> int:
    """The point among four neighbours in a row, in 2^-6 levels."""
    total = np.int32(row[x]) * np.int32(weights[0]) + np.int32(row[x + 1]) * np.int32(weights[1])
    total += np.int32(row[x + 2]) * np.int32(weights[2]) + np.int32(row[x + 3]) * np.int32(weights[3])
    # Cut, not rounded: so a map along one axis alone is rounded once, to the nearest level, whichever axis it is.
    return int(total) >> 8


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
    padded = pad_edges(view_CHW)
    for y in range(size):
        # In 2^-21 pixels, as a pixel's middle lies at half of one.
        right = a + b * (2 * y + 1) + c
        down_0 = d + e * (2 * y + 1) + f
        for x in range(size):
            across, down = right + 2 * a * x, down_0 + 2 * d * x
            is_inside = 0 <= across < size << 21 and 0 <= down < size << 21
            # Rounded to 2^-10 pixels, from the middle of the pixel two columns and two rows before the padded view's.
            across, down = across + (1 << 20) + (1 << 10), down + (1 << 20) + (1 << 10)
            across_4, down_4 = phases[(across >> 11) & 1023], phases[(down >> 11) & 1023]
            for channel in range(3):
                if is_inside:
                    level = weigh_sixteen(padded[channel], (down >> 21, across >> 21), down_4, across_4)
                    out_CHW[channel, y, x] = level
                else:
                    out_CHW[channel, y, x] = fill[channel]


def weigh_sixteen(plane: Bytes, corner: tuple[int, int], down_4: Shorts, across_4: Shorts) -> np.uint8:
    """The point among four by four pixels, as a level; the corner is their first row and column."""
    y, x = corner
    total = weigh_four(plane[y], x, across_4) * np.int32(down_4[0])
    total += weigh_four(plane[y + 1], x, across_4) * np.int32(down_4[1])
    total += weigh_four(plane[y + 2], x, across_4) * np.int32(down_4[2])
    total += weigh_four(plane[y + 3], x, across_4) * np.int32(down_4[3])
    return clip(np.int32(total + (1 << 19)) >> 20)


def slide_rows(
    view_CHW: Bytes, motion: tuple[int, int], phases: Shorts, fill: tuple[int, int, int], out_CHW: Bytes
) -> None:
    """What `warp` makes where row y moves along itself by motion[0] · (2y + 1) + motion[1], in 2^-21 pixels."""
    size = view_CHW.shape[1]
    padded = pad_edges(view_CHW)
    for y in range(size):
        offset = motion[0] * (2 * y + 1) + motion[1]
        # Columns whose point lies within the view.
        low = min(max(-((offset + (1 << 20)) >> 21), 0), size)
        high = max(min(((size << 21) - 1 - offset - (1 << 20)) >> 21, size - 1) + 1, low)
        place = (offset + (1 << 10)) >> 21
        weights = phases[((offset + (1 << 10)) >> 11) & 1023]
        for c in range(3):
            slide_row(padded[c, y + 2], place + 1, weights, (low, high, fill[c]), out_CHW[c, y])


def slide_row(row: Bytes, place: int, weights: Shorts, edges: tuple[int, int, int], out: Bytes) -> None:
    """The row from its padded one, moved by whole pixels and one phase; edges: first and end column, and the fill."""
    low, high, fill = edges
    for x in range(low):
        out[x] = fill
    if low < high:
        source, inside = row[low + place : high + place + 3], out[low:high]
        a, b, c, d = np.int32(weights[0]), np.int32(weights[1]), np.int32(weights[2]), np.int32(weights[3])
        for j in range(high - low):
            total = a * np.int32(source[j]) + b * np.int32(source[j + 1])
            total += c * np.int32(source[j + 2]) + d * np.int32(source[j + 3])
            inside[j] = clip(np.int32(total + 8192) >> 14)
    for x in range(high, len(out)):
        out[x] = fill


def slide_columns(
    view_CHW: Bytes, motion: tuple[int, int], phases: Shorts, fill: tuple[int, int, int], out_CHW: Bytes
) -> None:
    """What `warp` makes where column x moves along itself by motion[0] · (2x + 1) + motion[1], in 2^-21 pixels."""
    # Neighbours in a column move alike, those in a row do not: transposed twice, the work is that of `slide_rows`.
    turned, moved = np.empty_like(view_CHW), np.empty_like(view_CHW)
    transpose(view_CHW, turned)
    slide_rows(turned, motion, phases, fill, moved)
    transpose(moved, out_CHW)
