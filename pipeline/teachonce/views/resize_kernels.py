"""A box of an image as a square view: crop, resize and flip in one.

Shapes: C channels, H and W of an image, S side of the view, N = 3 · W, K taps of a window, R rows of a strip.
"""

import numpy as np

from teachonce.views.kernels import Bytes, Ints, Longs, Shorts, pack_four_rows, pack_rows

Row = Bytes | Shorts
Four = tuple[Row, Row, Row, Row]
"""Neighbouring rows of pixels."""
Rounding = tuple[int, int, int]
"""How many bits sums lose, and the least and greatest number that is left of them."""

STRIP_ROWS = 112
"""Most rows of a view that are resized together: as many as leave the strip in a core's cache. A multiple of 8."""
_STRIP_NUMBERS = 1 << 22
"""Most numbers of a strip, unless eight rows have more: the columns of a wide and low image would fill the memory."""
TO_64THS: Rounding = (8, -(1 << 15), (1 << 15) - 1)
"""Rounding between the axes, to multiples of 2^-6 levels, which fit 16 bits.

Cut to whole levels, what overshoots black and white would be lost there, by which axis comes first.
"""
TO_LEVELS: Rounding = (20, 0, 255)
"""Rounding of the second axis's sums to the nearest level."""


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
            # Below 2^45 for sides up to 2^27. The filter sums to about 2^20 · widest / size, so that with the shift by
            # 15 below the sums stay under 2^63.
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


def weigh_rows(rows: Row, window: tuple[int, Shorts, Rounding], columns: tuple[int, int], sums: Ints, out: Row) -> None:
    """One row of a resized image, between two columns, from the K rows of a window: the first, weights, rounding."""
    (first, weights_K, rounding), (begin, end) = window, columns
    last, taps, half = len(rows) - 1, len(weights_K), np.int32(1 << (rounding[0] - 1))
    if taps % 4:
        start_pair(rows[first, begin:end], rows[min(first + 1, last), begin:end], weights_K, half, sums)
    else:
        for j in range(end - begin):
            sums[j] = half
    for k in range(taps % 4, taps, 4):
        # Rows past the last have no weight.
        a, b = rows[min(first + k, last), begin:end], rows[min(first + k + 1, last), begin:end]
        c, d = rows[min(first + k + 2, last), begin:end], rows[min(first + k + 3, last), begin:end]
        if k + 4 < taps:
            add_four((a, b, c, d), weights_K[k : k + 4], sums)
        else:
            finish_four((a, b, c, d), weights_K[k : k + 4], rounding, sums, out)


# Magnitudes of a window's weights sum to less than 2^15: to 1.25 · 2^14 half-way between two pixels, and 1.27 · 2^14
# was the most of all boxes at edges that were tried (a test tries others). The first axis weighs levels: each sum
# below, in any order, is under 2^23, and what its rounding leaves under 2^15. The second weighs that: under 2^30, and
# 2^19 of rounding.
def start_pair(a: Row, b: Row, weights: Shorts, half: np.int32, sums: Ints) -> None:
    """Half of what is lost, and two rows by their weights."""
    v, w = np.int32(weights[0]), np.int32(weights[1])
    for j in range(len(a)):
        sums[j] = np.int32(half + v * np.int32(a[j]) + w * np.int32(b[j]))


def add_four(rows: Four, weights: Shorts, sums: Ints) -> None:
    """Four more rows by their weights."""
    a, b, c, d = rows
    v, w, x, y = np.int32(weights[0]), np.int32(weights[1]), np.int32(weights[2]), np.int32(weights[3])
    for j in range(len(a)):
        sums[j] += np.int32(v * np.int32(a[j]) + w * np.int32(b[j]) + x * np.int32(c[j]) + y * np.int32(d[j]))


def finish_four(rows: Four, weights: Shorts, rounding: Rounding, sums: Ints, out: Row) -> None:
    """The last four rows, and the sum rounded."""
    a, b, c, d = rows
    v, w, x, y = np.int32(weights[0]), np.int32(weights[1]), np.int32(weights[2]), np.int32(weights[3])
    bits, least, most = np.int32(rounding[0]), np.int32(rounding[1]), np.int32(rounding[2])
    for j in range(len(a)):
        four = v * np.int32(a[j]) + w * np.int32(b[j]) + x * np.int32(c[j]) + y * np.int32(d[j])
        out[j] = min(max(np.int32(sums[j] + four) >> bits, least), most)


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
    rows = min(STRIP_ROWS, max(8, _STRIP_NUMBERS // (3 * (end - begin)) // 8 * 8))
    for y in range(0, size, rows):
        count = min(rows, size - y)
        # Down the columns first, where neighbours in memory have the same weights.
        strip_RN = np.empty(((count + 7) // 8 * 8, 3 * (end - begin)), np.int16)
        sums = np.empty(max(strip_RN.shape[1], 3 * strip_RN.shape[0]), np.int32)
        for row in range(count):
            window = (down_S[y + row], down_SK[y + row], TO_64THS)
            weigh_rows(image_HN, window, (3 * begin, 3 * end), sums, strip_RN[row])
        across_CRS = resize_across(strip_RN, across_S, across_SK, mirrored, sums)
        for c in range(3):
            for row in range(count):
                for x in range(size):
                    out_CHW[c, y + row, x] = across_CRS[c, row, x]


def resize_across(strip_RN: Shorts, first_S: Longs, weights_SK: Shorts, mirrored: bool, sums: Ints) -> Bytes:
    """The rows of a strip resized along themselves, (3, R, S or a few columns more).

    Transposed, it is the same work on neighbours in memory.
    """
    size, rows = len(first_S), len(strip_RN)
    words = np.empty((strip_RN.shape[1], rows // 4), np.uint64)
    pack_four_rows(strip_RN, words)
    across_WN = words.view(np.int16).reshape(strip_RN.shape[1] // 3, 3 * rows)
    # The mirror costs nothing here: columns are written in the other order.
    out_SN = np.zeros(((size + 7) // 8 * 8, 3 * rows), np.uint8)
    for i in range(size):
        column = size - 1 - i if mirrored else i
        weigh_rows(across_WN, (first_S[i], weights_SK[i], TO_LEVELS), (0, 3 * rows), sums, out_SN[column])
    back = np.empty((3 * rows, len(out_SN) // 8), np.uint64)
    pack_rows(out_SN, back)
    return back.view(np.uint8).reshape(3, rows, len(out_SN))
