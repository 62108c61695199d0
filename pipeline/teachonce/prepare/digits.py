"""The UCI handwritten digits that scikit-learn ships."""

import numpy as np

from teachonce.prepare import encode
from teachonce.prepare.image_source import UNSPLIT, ListedImage, ListedSource

_FULL_INK = 16
"""Greatest value of a pixel in scikit-learn's copy."""


def list_digits() -> ListedSource:
    """List the 1,797 digits, 8 × 8, grey.

    Their values 0 … 16 (black on white counts as ink, 16 is full) become (v × 255 + 8) // 16 in 0 … 255.
    """
    from sklearn import datasets  # noqa: PLC0415 - takes a second, and other images need none of it

    digits = datasets.load_digits()
    # In integers, rounded half up: the same pixels, and so the same tar, on every machine.
    values = digits.images.astype(np.uint32)
    pixels = ((values * 255 + _FULL_INK // 2) // _FULL_INK).astype(np.uint8)
    images = [ListedImage(f"digits/{row:04d}", int(label), str(row)) for row, label in enumerate(digits.target)]
    return ListedSource(
        classes=[str(name) for name in digits.target_names],
        splits={UNSPLIT: images},
        read=lambda name: encode.uncompressed_png(pixels[int(name)]),
    )
