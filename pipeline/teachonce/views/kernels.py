"""The integer arithmetic of a view in loops, for `kernel_choice` to compile; FORMAT.md, "Views", says what it computes.

Uncompiled it would take seconds a view: without a compiler `kernels_numpy` computes the same. No float occurs here, and
no intermediate depends on how wide a language makes it: a compiler widens where NumPy wraps, so that every sum is
either cast to int32, with the proof that it fits, or int64.

Shapes: C channels, H and W of an image or a view, S side of the view, N = 3 · W, K taps, R rows of a strip.
"""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Shorts = npt.NDArray[np.int16]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

STRIP_ROWS = 112
"""Rows of a view that are resized together: as many as leave the strip in a core's cache. A multiple of 8."""


def clip(value: int | np.int32) -> np.uint8:
    """The nearest level."""
    return np.uint8(min(max(np.int32(value), np.int32(0)), np.int32(255)))


def filter_value(distance: int, cubic: bool) -> int:
    """The resize's filter, a multiple of 2^-20, at a distance of multiples of 2^-16 from its middle."""
    if not cubic:
        return max(65536 - distance, 0) << 4
    # Below 2^54: distances are at most 2^17, by the width of the window, and more by a rounding alone.
    if distance < 65536:
        exact = (3 * distance - 5 * 65536) * distance * distance + (2 << 48)
    elif distance < 131072:
        exact = ((5 * 65536 - distance) * distance - (8 << 32)) * distance + (4 << 48)
    else:
        exact = 0
    return (exact + (1 << 28)) >> 29


def window_weights(box: tuple[int, int], extent: int, size: int, cubic: bool) -> tuple[Longs, Shorts]:
    """Along one axis: where the window of each of the view's pixels begins (S), and its weights (S, K), of sum 2^14.

    K is even and at least 4, for `weigh_rows`; what a window is shorter has no weight.
    """
    start, length = box[0], box[1] - box[0]
    widest = max(length, size)
    reach = (4 if cubic else 2) * widest
    most = max(4, (reach + size - 1) // size)
    most += most % 2
    first_S, weights_SK = np.empty(size, np.int64), np.zeros((size, most), np.int16)
    sums = np.empty(most, np.int64)
    for i in range(size):
        middle = (2 * i + 1) * length
        low = max(0, start + (middle - reach + size) // (2 * size))
        taps = min(extent, start + (middle + reach + size) // (2 * size)) - low
        total = 0
        for k in range(taps):
            distance = abs((2 * (low + k - start) + 1) * size - middle)
            # Below 2^45 for sides up to 2^27.
            total += filter_value((distance * 65536 + widest) // (2 * widest), cubic)
            sums[k] = total
        # Rounded as running sums: the weights add up exactly, so that a constant image stays as it is at any scale.
        before = 0
        for k in range(taps):
            upto = ((sums[k] << 15) + total) // (2 * total)
            weights_SK[i, k] = upto - before
            before = upto
        first_S[i] = low
    return first_S, weights_SK


def weigh_rows(rows: Bytes, place: tuple[int, int, int], weights_K: Shorts, sums: Ints, out: Bytes) -> None:
    """A part of one row of a resized image: from the K rows from place[0] on, columns place[1] to place[2]."""
    first, begin, end = place
    last, taps = len(rows) - 1, len(weights_K)
    if taps % 4:
        start_pair(rows[first, begin:end], rows[min(first + 1, last), begin:end], weights_K, sums)
    else:
        for j in range(end - begin):
            sums[j] = 8192
    for k in range(taps % 4, taps, 4):
        # Rows past the last have no weight.
        a, b = rows[min(first + k, last), begin:end], rows[min(first + k + 1, last), begin:end]
        c, d = rows[min(first + k + 2, last), begin:end], rows[min(first + k + 3, last), begin:end]
        if k + 4 < taps:
            add_four((a, b, c, d), weights_K[k : k + 4], sums)
        else:
            finish_four((a, b, c, d), weights_K[k : k + 4], sums, out)


# Magnitudes of a window's weights sum to less than 2^15, so that each sum below, in any order, is under 2^23 + 2^13.
def start_pair(a: Bytes, b: Bytes, weights: Shorts, sums: Ints) -> None:
    """Half a level, and two rows by their weights."""
    v, w = np.int32(weights[0]), np.int32(weights[1])
    for j in range(len(a)):
        sums[j] = np.int32(8192 + v * np.int32(a[j]) + w * np.int32(b[j]))


def add_four(rows: tuple[Bytes, Bytes, Bytes, Bytes], weights: Shorts, sums: Ints) -> None:
    """Four more rows by their weights."""
    a, b, c, d = rows
    v, w, x, y = np.int32(weights[0]), np.int32(weights[1]), np.int32(weights[2]), np.int32(weights[3])
    for j in range(len(a)):
        sums[j] += np.int32(v * np.int32(a[j]) + w * np.int32(b[j]) + x * np.int32(c[j]) + y * np.int32(d[j]))


def finish_four(rows: tuple[Bytes, Bytes, Bytes, Bytes], weights: Shorts, sums: Ints, out: Bytes) -> None:
    """The last four rows, and the sum as a level."""
    a, b, c, d = rows
    v, w, x, y = np.int32(weights[0]), np.int32(weights[1]), np.int32(weights[2]), np.int32(weights[3])
    for j in range(len(a)):
        four = v * np.int32(a[j]) + w * np.int32(b[j]) + x * np.int32(c[j]) + y * np.int32(d[j])
        out[j] = clip(np.int32(sums[j] + four) >> 14)


def pack_rows(rows: Bytes, words: Words) -> None:
    """Transpose: eight rows become one column of words, the first row in the lowest byte."""
    for q in range(len(rows) // 8):
        a, b, c, d = rows[8 * q], rows[8 * q + 1], rows[8 * q + 2], rows[8 * q + 3]
        e, f, g, h = rows[8 * q + 4], rows[8 * q + 5], rows[8 * q + 6], rows[8 * q + 7]
        column = words[:, q]
        # Bytes one by one would be eight times as many stores.
        for j in range(len(a)):
            column[j] = (
                (np.uint64(a[j]) | np.uint64(b[j]) << np.uint64(8))
                | (np.uint64(c[j]) << np.uint64(16) | np.uint64(d[j]) << np.uint64(24))
                | (np.uint64(e[j]) << np.uint64(32) | np.uint64(f[j]) << np.uint64(40))
                | (np.uint64(g[j]) << np.uint64(48) | np.uint64(h[j]) << np.uint64(56))
            )


def resize(image_HWC: Bytes, box: tuple[int, int, int, int], options: tuple[bool, bool], out_CHW: Bytes) -> None:
    """The box (left, top, right, bottom) of an image as a square; options: bicubic or bilinear, mirrored or not."""
    height, width, size = image_HWC.shape[0], image_HWC.shape[1], out_CHW.shape[1]
    left, top, right, bottom = box
    cubic, mirrored = options
    down_S, down_SK = window_weights((top, bottom), height, size, cubic)
    across_S, across_SK = window_weights((left, right), width, size, cubic)
    # Columns that no window reaches are not computed.
    begin, end = across_S[0], min(width, across_S[size - 1] + across_SK.shape[1])
    across_S -= begin
    image_HN = image_HWC.reshape(height, 3 * width)
    for y in range(0, size, STRIP_ROWS):
        count = min(STRIP_ROWS, size - y)
        # Down the columns first, where neighbours in memory have the same weights.
        strip_RN = np.empty(((count + 7) // 8 * 8, 3 * (end - begin)), np.uint8)
        sums = np.empty(max(strip_RN.shape[1], 3 * strip_RN.shape[0]), np.int32)
        for row in range(count):
            place = (down_S[y + row], 3 * begin, 3 * end)
            weigh_rows(image_HN, place, down_SK[y + row], sums, strip_RN[row])
        across_CRS = resize_across(strip_RN, across_S, across_SK, mirrored, sums)
        for c in range(3):
            for row in range(count):
                for x in range(size):
                    out_CHW[c, y + row, x] = across_CRS[c, row, x]


def resize_across(strip_RN: Bytes, first_S: Longs, weights_SK: Shorts, mirrored: bool, sums: Ints) -> Bytes:
    """The rows of a strip resized along themselves, (3, R, S or a few columns more).

    Transposed, it is the same work on neighbours in memory.
    """
    size, rows = len(first_S), len(strip_RN)
    words = np.empty((strip_RN.shape[1], rows // 8), np.uint64)
    pack_rows(strip_RN, words)
    across_WN = words.view(np.uint8).reshape(strip_RN.shape[1] // 3, 3 * rows)
    # The mirror costs nothing here: columns are written in the other order.
    out_SN = np.zeros(((size + 7) // 8 * 8, 3 * rows), np.uint8)
    for i in range(size):
        column = size - 1 - i if mirrored else i
        weigh_rows(across_WN, (first_S[i], 0, 3 * rows), weights_SK[i], sums, out_SN[column])
    back = np.empty((3 * rows, len(out_SN) // 8), np.uint64)
    pack_rows(out_SN, back)
    return back.view(np.uint8).reshape(3, rows, len(out_SN))


def transpose(view_CHW: Bytes, out_CWH: Bytes) -> None:
    """Rows become columns."""
    size = view_CHW.shape[1]
    rows = np.zeros(((size + 7) // 8 * 8, size), np.uint8)
    words = np.empty((size, len(rows) // 8), np.uint64)
    columns = words.view(np.uint8)
    for c in range(3):
        for y in range(size):
            for x in range(size):
                rows[y, x] = view_CHW[c, y, x]
        pack_rows(rows, words)
        for x in range(size):
            for y in range(size):
                out_CWH[c, x, y] = columns[x, y]


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


def count_levels(view_CHW: Bytes) -> Longs:
    """How many pixels of each channel have each level: (3, 256)."""
    counts, others = np.zeros((3, 256), np.int64), np.zeros(256, np.int64)
    for c in range(3):
        levels = view_CHW[c].reshape(-1)
        others[:] = 0
        # Two counts in turn: neighbours are often equal, and an addition would wait for the one before.
        for j in range(0, len(levels) - 1, 2):
            counts[c, levels[j]] += 1
            others[levels[j + 1]] += 1
        if len(levels) % 2:
            counts[c, levels[len(levels) - 1]] += 1
        for level in range(256):
            counts[c, level] += others[level]
    return counts


def grey_level(red: int, green: int, blue: int) -> np.int32:
    """Luma of ITU-R 601 to the nearest level: below 255 · 2^16 + 2^15 < 2^24 before the shift."""
    return np.int32((19595 * np.int32(red) + 38470 * np.int32(green) + 7471 * np.int32(blue) + 32768) >> 16)


def sum_grey(view_CHW: Bytes) -> int:
    """Of all pixels."""
    total = 0
    for y in range(view_CHW.shape[1]):
        red, green, blue = view_CHW[0, y], view_CHW[1, y], view_CHW[2, y]
        for x in range(len(red)):
            total += int(grey_level(red[x], green[x], blue[x]))
    return total


def apply_tables(view_CHW: Bytes, tables: Bytes) -> None:
    """Each level by its channel's table, in place: (3, 256)."""
    for c in range(3):
        table, levels = tables[c], view_CHW[c].reshape(-1)
        for j in range(len(levels)):
            levels[j] = table[levels[j]]


def saturate(view_CHW: Bytes, factor: int) -> None:
    """Move each pixel from its grey by a factor of 2^-12, in place."""
    for y in range(view_CHW.shape[1]):
        red, green, blue = view_CHW[0, y], view_CHW[1, y], view_CHW[2, y]
        for x in range(len(red)):
            # Factors are below 2^17, for strengths up to 10: below 2^26.
            grey = grey_level(red[x], green[x], blue[x])
            red[x] = clip(np.int32(4096 * grey + factor * (red[x] - grey)) >> 12)
            green[x] = clip(np.int32(4096 * grey + factor * (green[x] - grey)) >> 12)
            blue[x] = clip(np.int32(4096 * grey + factor * (blue[x] - grey)) >> 12)


def sharpen(view_CHW: Bytes, factor: int, out_CHW: Bytes) -> None:
    """Move each pixel from the smoothed one by a factor of 2^-12; the border stays as it is."""
    size = view_CHW.shape[1]
    for c in range(3):
        for y in range(size):
            for x in range(size):
                out_CHW[c, y, x] = view_CHW[c, y, x]
        for y in range(1, size - 1):
            for x in range(1, size - 1):
                total = 4 * np.int32(view_CHW[c, y, x])
                for j in range(3):
                    total += np.int32(view_CHW[c, y - 1, x - 1 + j]) + np.int32(view_CHW[c, y, x - 1 + j])
                    total += np.int32(view_CHW[c, y + 1, x - 1 + j])
                # To the nearest; thirteenths have no halves.
                smooth = np.int32(2 * total + 13) // 26
                level = np.int32(view_CHW[c, y, x])
                out_CHW[c, y, x] = clip(np.int32(4096 * smooth + factor * (level - smooth)) >> 12)


def mix(view_CHW: Bytes, other_CHW: Bytes, weight: int) -> None:
    """The weighted sum of two views in place of the first; its weight in 2^-12, halves up."""
    levels, others = view_CHW.reshape(-1), other_CHW.reshape(-1)
    for j in range(len(levels)):
        levels[j] = np.uint8(np.int32(weight * levels[j] + (4096 - weight) * others[j] + 2048) >> 12)
