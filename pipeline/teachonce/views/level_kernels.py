"""Levels of a view that change where they are: tables, grey, sharpness and the sum of two views.

Shapes: C channels, H and W of a view.
"""

import numpy as np

from teachonce.views.kernels import Bytes, Longs, clip


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
                # To the nearest; thirteenths have no halves. The total is at most 13 · 255, and a factor below 2^17, so
                # that the product is below 2^25.
                smooth = np.int32(2 * total + 13) // 26
                level = np.int32(view_CHW[c, y, x])
                out_CHW[c, y, x] = clip(np.int32(4096 * smooth + factor * (level - smooth)) >> 12)


def mix(view_CHW: Bytes, other_CHW: Bytes, weight: int) -> None:
    """The weighted sum of two views in place of the first; its weight in 2^-12, halves up."""
    levels, others = view_CHW.reshape(-1), other_CHW.reshape(-1)
    # At most 4096 · 255 + 2048, below 2^21.
    for j in range(len(levels)):
        levels[j] = np.uint8(np.int32(weight * levels[j] + (4096 - weight) * others[j] + 2048) >> 12)
