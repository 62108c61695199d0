"""Small images, decoded once: of a digit's view, opening and decoding its PNG again took longer than rendering it."""

import numpy as np
import numpy.typing as npt

from teachonce.shards import decode

MAX_FILE_BYTES = 1 << 13
"""Larger files are decoded each time: photographs would fill the memory at once."""
MAX_PIXEL_BYTES = 1 << 14
"""Of an image that is kept: 73 × 73 pixels."""
MAX_BYTES = 1 << 26
"""Of all that a process keeps. Those that come first stay: a pass goes round, so that the last used come back last."""


class SmallImages:
    """What a process has decoded of small images."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Keep at most so many bytes."""
        self._pixels: dict[bytes, npt.NDArray[np.uint8]] = {}
        self._bytes_left = max_bytes

    def rgb_pixels(self, data: bytes, where: str) -> npt.NDArray[np.uint8]:
        """As `decode.rgb_pixels`, of which it is the array itself where these bytes were decoded before."""
        if len(data) > MAX_FILE_BYTES:
            return decode.rgb_pixels(data, where)
        pixels_HWC = self._pixels.get(data)
        if pixels_HWC is None:
            pixels_HWC = decode.rgb_pixels(data, where)
            size = len(data) + pixels_HWC.nbytes
            if pixels_HWC.nbytes <= MAX_PIXEL_BYTES and size <= self._bytes_left:
                self._pixels[data] = pixels_HWC
                self._bytes_left -= size
        return pixels_HWC
