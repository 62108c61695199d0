"""A view moved by an affine map: turned, or its rows or columns slid along themselves.

Shapes: C channels, H and W of a view.
"""

import numpy as np

from teachonce.views.kernels import Bytes, Halves, Ints, Longs, Shorts, clip, transpose


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


def join_fours(view_CHW: Bytes) -> Halves:
    """Each pixel of the padded view with the three to its right, the first in the lowest byte: (C, H + 4, W + 1)."""
    padded = pad_edges(view_CHW)
    size = view_CHW.shape[1]
    fours = np.empty((3, size + 4, size + 1), np.uint32)
    for c in range(3):
        for y in range(size + 4):
            row, out = padded[c, y], fours[c, y]
            for x in range(size + 1):
                pair = np.uint32(row[x]) | np.uint32(row[x + 1]) << np.uint32(8)
                out[x] = pair | np.uint32(row[x + 2]) << np.uint32(16) | np.uint32(row[x + 3]) << np.uint32(24)
    return fours


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
    fours = join_fours(view_CHW)
    is_inside, places = np.empty(size, np.bool_), np.empty(size, np.int64)
    weights, gathered = np.empty((8, size), np.int32), np.empty((4, size), np.uint32)
    for y in range(size):
        # In 2^-21 pixels, as a pixel's middle lies at half of one.
        right = a + b * (2 * y + 1) + c
        down_0 = d + e * (2 * y + 1) + f
        for x in range(size):
            across, down = right + 2 * a * x, down_0 + 2 * d * x
            is_inside[x] = 0 <= across < size << 21 and 0 <= down < size << 21
            # Rounded to 2^-10 pixels, from the middle of the pixel two columns and two rows before the padded view's.
            across, down = across + (1 << 20) + (1 << 10), down + (1 << 20) + (1 << 10)
            places[x] = (down >> 21) * (size + 1) + (across >> 21) if is_inside[x] else 0
            for k in range(4):
                weights[k, x] = phases[(across >> 11) & 1023, k]
                weights[4 + k, x] = phases[(down >> 11) & 1023, k]
        for channel in range(3):
            # Gathered first: what follows is the same work for neighbours in memory.
            gather_rows(fours[channel].reshape(-1), places, size + 1, gathered)
            weigh_rows_of_four(gathered, weights, out_CHW[channel, y])
            for x in range(size):
                if not is_inside[x]:
                    out_CHW[channel, y, x] = fill[channel]


def gather_rows(fours: Halves, places: Longs, width: int, gathered: Halves) -> None:
    """The first four pixels from each place on, and those of the three rows below."""
    for x in range(len(places)):
        for k in range(4):
            gathered[k, x] = fours[places[x] + k * width]


# Weights of a point sum to at most 1.5 · 2^14 in magnitude: a row's sum is below 255 · 1.5 · 2^14 < 2^23, that of
# four rows, in 2^-6 levels by 2^-14, below 255 · 64 · 1.5 · 1.5 · 2^14 + 2^19 < 2^30: all fit int32.
def weigh_rows_of_four(gathered: Halves, weights: Ints, out: Bytes) -> None:
    """A row of points, each among four by four pixels; the weights are four across and four down."""
    for x in range(len(out)):
        total = np.int32(1 << 19)
        for k in range(4):
            four = gathered[k, x]
            row = np.int32(four & np.uint32(255)) * weights[0, x]
            row += np.int32((four >> np.uint32(8)) & np.uint32(255)) * weights[1, x]
            row += np.int32((four >> np.uint32(16)) & np.uint32(255)) * weights[2, x]
            row += np.int32(four >> np.uint32(24)) * weights[3, x]
            # Cut, not rounded: so a map along one axis alone is rounded once, to the nearest level, whichever it is.
            total = np.int32(total + (np.int32(row) >> 8) * weights[4 + k, x])
        out[x] = clip(total >> 20)


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
