"""The integer arithmetic of a view in loops, for `kernel_compiler` to compile: what the kernels share.

FORMAT.md, "Views", says what they compute. Uncompiled they would take seconds a view: without a compiler
`kernels_numpy` computes the same. No float occurs in them, and no intermediate depends on how wide a language makes it:
a compiler widens where NumPy wraps, so that every sum is either cast to int32, with the proof that it fits, or int64.

Compiled functions know each other by bare names, so that the modules of kernels import functions from here.

Shapes: C channels, H and W of a view.
"""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Shorts = npt.NDArray[np.int16]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Halves = npt.NDArray[np.uint32]
Words = npt.NDArray[np.uint64]


def clip(value: int | np.int32) -> np.uint8:
    """The nearest level."""
    return np.uint8(min(max(np.int32(value), np.int32(0)), np.int32(255)))


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


def pack_four_rows(rows: Shorts, words: Words) -> None:
    """Transpose: four rows become one column of words, the first row in the lowest bytes."""
    for q in range(len(rows) // 4):
        a, b, c, d = rows[4 * q], rows[4 * q + 1], rows[4 * q + 2], rows[4 * q + 3]
        column = words[:, q]
        for j in range(len(a)):
            column[j] = (np.uint64(np.uint16(a[j])) | np.uint64(np.uint16(b[j])) << np.uint64(16)) | (
                np.uint64(np.uint16(c[j])) << np.uint64(32) | np.uint64(np.uint16(d[j])) << np.uint64(48)
            )


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
