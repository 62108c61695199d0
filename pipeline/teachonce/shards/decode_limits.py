"""What a file may ask of its decoder: about a second and half a gigabyte, where it has less than a megabyte.

A few bytes can stand for any number of pixels, and for any number of passes over them. So an image may have 36 million
pixels at most, a page at 600 dots an inch, or 36 to a byte of its file where that is more; each counts as often as its
kind takes longer than a plain one (`_weight`, measured; RESULTS.md has the figures). `max_pixels` stays above all.
"""

from collections.abc import Sequence

from PIL import Image, ImageFile

from teachonce.core import errors

PIXELS_PER_BYTE = 36
MIN_COUNTED_BYTES = 1_000_000
"""A smaller file may have as many pixels as one of this size."""
PNG_16_BITS = ("RGB;16B", "RGBA;16B")
"""What Pillow calls the pixels of a 16-bit colour PNG."""
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa")
_LINE_PIXELS = 16  # that a line costs beside its own
_FEWEST_LINES = 8  # that a resize holds of an image, however low it is
_FORMAT_WEIGHTS = {"JPEG2000": 8, "QOI": 2, "WEBP": 2}
_RUNS_WEIGHT = 8  # of BMP, which Pillow fills in by a loop of Python
_PASSES = 10  # over a JPEG's coefficients, which cost as much as its pixels
_MAX_PROFILES = 16  # each unpacks to a megabyte, and is thrown away for the next
_MIN_COSTLY_BYTES = 1 << 18  # in a smaller file, profiles take a quarter of a second
_MAX_COMMENTS = 256  # Pillow copies the file for each
_CURE = "Save the picture again at a smaller size, or remove the file"
_TILE_WIDTH, _TILE_LENGTH, _STRIPS, _TILES = 322, 323, 273, 324  # tags of a TIFF


def require_pixel_limit(image: Image.Image, data: bytes, where: str) -> None:
    """Refuse an opened image that takes too long, before any of its pixels is decoded.

    Args:
        image: opened, not loaded.
        data: the whole file.
        where: names the image in a refusal.

    Raises:
        DataError: it has too many pixels for its bytes.
    """
    weight = _weight(image, data)
    # A large file may have more: whoever sends it has paid for its pixels in bytes.
    limit = int(PIXELS_PER_BYTE * max(MIN_COUNTED_BYTES, len(data)) / weight)
    # The longer side is the width of a picture that EXIF turns.
    least = _FEWEST_LINES * max(image.size)
    pixels = max((image.width + _LINE_PIXELS) * image.height, _tile_pixels(image), least)
    if pixels > limit:
        condition = f"at most {limit:,} in a file of {len(data):,} bytes of this kind"
        value = f"{pixels:,} to decode for {image.width} x {image.height}"
        raise errors.DataError.for_value(where, "pixel count", condition, value, _CURE)


def require_header_limits(data: bytes, where: str) -> None:
    """Refuse a file that takes too long to open.

    Raises:
        DataError: it has too many colour profiles or comments.
    """
    # Counted as bytes, which also counts what only looks like a header: it errs on the side of refusing.
    if len(data) > _MIN_COSTLY_BYTES and data.startswith(b"\x89PNG") and (count := data.count(b"iCCP")) > _MAX_PROFILES:
        raise errors.DataError.for_value(where, "colour profiles", f"at most {_MAX_PROFILES}", count, _CURE)
    if data.startswith((b"P1", b"P2", b"P3")) and (count := data.count(b"#")) > _MAX_COMMENTS:
        raise errors.DataError.for_value(where, "comments", f"at most {_MAX_COMMENTS}", count, _CURE)


def _weight(image: Image.Image, data: bytes) -> float:
    """How many pixels of a plain JPEG take as long as one of this image."""
    weight = float(_FORMAT_WEIGHTS.get(image.format or "", 1))
    if image.mode in ALPHA_MODES or "transparency" in image.info or image.mode.startswith("I"):
        weight = max(weight, 2)
    if image.format == "PNG":
        weight = max(weight, 1 + bool(image.info.get("interlace")))
        weight = max(weight, 5 * (_arguments(image) in PNG_16_BITS))
    if _codec(image) == "bmp_rle":
        weight = _RUNS_WEIGHT
    return max(weight, _scans(image, data) / _PASSES)


def _scans(image: Image.Image, data: bytes) -> float:
    """Upper bound of the passes over a JPEG's coefficients; 1 where there can be no more."""
    if image.format in {"JPEG", "MPO"}:
        scan_start = image.fp.tell() if image.fp else 0  # type: ignore[attr-defined]  # behind the head of the first scan
        # A baseline file whose first scan holds all components has no second one; any other may go on as long as it
        # likes.
        components = data[data.rfind(b"\xff\xda", 0, scan_start) + 4 : scan_start][:1]
        if image.info.get("progressive") or components < bytes([image.layers]):  # type: ignore[attr-defined]
            return data.count(b"\xff\xda")
    # Each strip or tile is a JPEG of its own, and what is counted are the scans of all of them together.
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression")):
        return data.count(b"\xff\xda") / max(1, len(set(_tags(image, _STRIPS) or _tags(image, _TILES))))
    return 1


def _tile_pixels(image: Image.Image) -> int:
    """A TIFF's tile is decoded whole, however little of it belongs to the image."""
    if image.format != "TIFF":
        return 0
    (width, *_), (length, *_) = _tags(image, _TILE_WIDTH) or (0,), _tags(image, _TILE_LENGTH) or (0,)
    return width * length


def _tags(image: Image.Image, tag: int) -> Sequence[int]:
    value = image.tag_v2.get(tag, ())  # type: ignore[attr-defined]
    return value if isinstance(value, tuple) else (value,)


def _codec(image: Image.Image) -> str:
    tile: Sequence[ImageFile._Tile] = getattr(image, "tile", ())
    return tile[0].codec_name if tile else ""


def _arguments(image: Image.Image) -> object:
    tile: Sequence[ImageFile._Tile] = getattr(image, "tile", ())
    return tile[0].args if tile else None
