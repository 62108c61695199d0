"""RGB or grey pixels into PNG, by two efforts: small files, or bytes that are the same everywhere."""

import io

import numpy as np
from PIL import Image


def encode_compressed(image: Image.Image) -> bytes:
    """A lossless PNG at zlib's usual effort; its bytes may differ between zlib builds, its pixels do not."""
    return _save(image, compress_level=6)


def encode_uncompressed(pixels: np.ndarray) -> bytes:
    """An uncompressed PNG of uint8 (H, W).

    For images of a few hundred bytes, where compression saves nothing after a tar's 512-byte blocks, and where stored
    bytes make the tar's sha256 the same on every machine.
    """
    return _save(Image.fromarray(pixels), compress_level=0)


def _save(image: Image.Image, compress_level: int) -> bytes:
    buffer = io.BytesIO()
    # A new image from the pixels alone: Pillow would copy colour profile and text of the source into the file.
    bare_image = Image.new(image.mode, image.size)
    bare_image.paste(image)
    bare_image.save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()
