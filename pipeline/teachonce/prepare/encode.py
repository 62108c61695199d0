"""RGB or grey pixels into image files."""

import io

import numpy as np
from PIL import Image


def smaller(image: Image.Image, max_side: int) -> Image.Image:
    """Shrink an image in its proportions until its longer side is `max_side` pixels.

    Once, before anything is cached: what is stored is the image from then on, whichever filter made it.
    """
    width, height = (max(1, round(side * max_side / max(image.size))) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image) -> bytes:
    """A JPEG that is hard to tell from the pixels: quality 95, colours at full resolution."""
    return _save(image, "JPEG", quality=95, subsampling=0)


def png(image: Image.Image) -> bytes:
    """A lossless PNG at zlib's usual effort; its bytes may differ between zlib builds, its pixels do not."""
    return _save(image, "PNG", compress_level=6)


def uncompressed_png(pixels: np.ndarray) -> bytes:
    """An uncompressed PNG of uint8 (H, W).

    For images of a few hundred bytes, where compression saves nothing after a tar's 512-byte blocks, and where stored
    bytes make the tar's sha256 the same on every machine.
    """
    return _save(Image.fromarray(pixels), "PNG", compress_level=0)


def _save(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    # A new image from the pixels alone: Pillow would copy colour profile and text of the source into the file.
    bare_image = Image.new(image.mode, image.size)
    bare_image.paste(image)
    bare_image.save(buffer, kind, **options)
    return buffer.getvalue()
