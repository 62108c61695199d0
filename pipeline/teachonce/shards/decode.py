"""Encoded bytes into an RGB image: the one place, so that prepare, teacher and student see the same pixels.

Colour profiles are ignored, as image classifiers are trained that way; of several frames the first is taken.
"""

import functools
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError

from teachonce.core import errors
from teachonce.shards import decode_limits, decoder_messages

MAX_PIXELS = 89_478_485
"""Pillow's own limit: above it an image is taken for a decompression bomb."""
MAX_BYTES = 1 << 29
"""Most bytes of a file that is read whole."""

# Not every plugin: EPS would start Ghostscript on untrusted input, others only identify a file.
_FORMATS = (
    *("JPEG", "PNG", "WEBP"),
    *("AVIF", "BMP", "DIB", "GIF", "JPEG2000", "MPO", "PCX", "PPM", "QOI", "SGI", "TGA", "TIFF"),
)
_EXIF_SOURCES = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REPLACE = "Replace or remove the file"


def rgb(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image to mode RGB, upright, without alpha.

    EXIF orientation is applied; alpha is composited on white; 16-bit samples v become round(v / 257), except that
    16-bit TIFF colour and 16-bit PNG grey with alpha keep their high byte, which is at most one level away.

    Args:
        data: the whole file.
        where: names the image in a refusal.
        max_pixels: width × height above which the image is refused, from its header, before anything is decoded.

    Raises:
        DataError: the data is empty, of no known format, too large, cut, damaged, or of pixels without a known range.
    """
    decoder_messages.silence()
    image = _open(data, where, max_pixels)
    # Taken now, since load() empties it: it tells whether Pillow is about to drop the low bytes.
    tile = getattr(image, "tile", ())
    try:
        image.load()
        low_bytes = _low_bytes(_open(data, where, max_pixels)) if _lost_low_bytes(image, tile) else None
        return _upright(_to_rgb(image, low_bytes), image)
    except errors.DataError:
        raise
    except Exception as error:  # a damaged file makes a plugin fail in any way: struct, zlib, index, type
        raise _decode_error(where, error) from error


def rgb_pixels(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """The pixels of `rgb`: uint8 (H, W, 3), C-contiguous, read-only.

    Args:
        data: the whole file.
        where: names the image in a refusal.
        max_pixels: width × height above which the image is refused.

    Raises:
        DataError: as `rgb`.
    """
    return np.asarray(rgb(data, where, max_pixels))


def _decode_error(where: str, error: Exception) -> errors.DataError:
    return errors.DataError(where, f"cannot be decoded ({errors.single_line(error)})", _REPLACE)


def detect_extension(data: bytes) -> str | None:
    """`jpg`, `png` or `webp` by the first bytes, whatever the file was called; None for any other format."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    return None


@functools.cache
def file_suffixes() -> frozenset[str]:
    """File name endings, in lower case with their dot, that belong to the formats read here."""
    suffixes = Image.registered_extensions()
    return frozenset(suffix.lower() for suffix, name in suffixes.items() if name in _FORMATS)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _open(data: bytes, where: str, max_pixels: int) -> Image.Image:
    if not data:
        raise errors.DataError(where, "is empty", _REPLACE)
    # Before Pillow sees it: opening alone takes long where a header asks for it.
    decode_limits.require_header_limits(data, where)
    limit = f"at most {max_pixels:,} (max_pixels)"
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError as error:
        raise errors.DataError.for_value(
            where, "pixel count", limit, f"more than {2 * MAX_PIXELS:,}", _REPLACE
        ) from error
    except UnidentifiedImageError as error:
        raise errors.DataError(where, "is not an image of a known format", _REPLACE) from error
    except Exception as error:  # as above
        raise _decode_error(where, error) from error
    if image.width * image.height > max_pixels:
        raise errors.DataError.for_value(where, "pixel count", limit, f"{image.width} x {image.height}", _REPLACE)
    # Opened, not yet decoded: the header tells the size, and what it would cost.
    decode_limits.require_pixel_limit(image, data, where)
    return image


def _to_rgb(image: Image.Image, low_bytes: Image.Image | None) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bits(_grey_16_bits(image), image.info.get("transparency"))
    if image.mode == "F":
        raise ValueError("its pixels are floating point, whose range is unknown; store 8 or 16 bits")
    if low_bytes is not None:
        # Decoded twice, once for either byte: the high one alone is up to a level away from the rounded value.
        return _from_16_bits(
            np.stack([np.asarray(low_bytes), np.asarray(image)], axis=-1).view("<u2")[..., 0],
            image.info.get("transparency"),
        )
    if image.mode in decode_limits.ALPHA_MODES or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for Adobe's inverted kind; by libjpeg's convention only those so marked are.
        image = ImageChops.invert(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey_16_bits(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    # Mode I is what Pillow makes of a 16-bit PGM, scaled to the full range; elsewhere its range is anyone's guess.
    if image.mode == "I" and image.format != "PPM":
        raise ValueError("its pixels are 32-bit integers, whose range is unknown; store 8 or 16 bits")
    return values.astype(np.uint16)[:, :, None]


def _lost_low_bytes(image: Image.Image, tile: Sequence[ImageFile._Tile]) -> bool:
    """Whether it is a 16-bit colour PNG, of which Pillow keeps the high bytes alone."""
    return image.format == "PNG" and bool(tile) and tile[0].args in decode_limits.PNG_16_BITS


def _low_bytes(image: Image.Image) -> Image.Image:
    # Read as little-endian, the byte that Pillow takes for the high one is the low one.
    image.tile = [part._replace(args=part.args.replace("16B", "16L")) for part in image.tile]  # type: ignore[attr-defined]
    image.load()
    return image


def _from_16_bits(values: np.ndarray, transparent: object) -> Image.Image:
    """Uint16 (H, W, 1 | 3 | 4) to RGB; the colour `transparent` of a PNG's tRNS chunk becomes white."""
    scaled = _levels_of_16_bits()[values]
    if values.shape[2] == 4:
        return _on_white(Image.fromarray(scaled))
    if transparent is not None:
        colour = np.atleast_1d(np.asarray(transparent, np.uint16))
        # Channel by channel: `all` over so short an axis takes as long as decoding.
        matches = [values[:, :, channel] == colour[channel] for channel in range(len(colour))]
        scaled[np.logical_and.reduce(matches)] = 255
    return Image.fromarray(np.broadcast_to(scaled, (*scaled.shape[:2], 3)).copy())


@functools.cache
def _levels_of_16_bits() -> np.ndarray:
    """Uint8 (65536,): round(v / 257)."""
    return ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")


def _upright(picture: Image.Image, source: Image.Image) -> Image.Image:
    # Pillow turns a TIFF by itself while loading.
    if source.format == "TIFF" or not any(name in source.info for name in _EXIF_SOURCES):
        return picture
    try:
        orientation = source.getexif().get(_ORIENTATION_TAG)
    except Exception:  # EXIF that cannot be parsed tells no orientation; the pixels are sound
        return picture
    transposition = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture if transposition is None else picture.transpose(transposition)
