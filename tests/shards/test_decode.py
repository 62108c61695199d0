"""Every colour mode against one known picture."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from teachonce.core import errors
from teachonce.shards import decode

Y, X = np.mgrid[0:24, 0:40]
PICTURE = np.stack([X * 6, Y * 10, 200 - X * 2 - Y * 3], axis=2).astype(np.uint8)
"""Smooth, not symmetric, no two corners alike: uint8 (24, 40, 3)."""
GREY = (X * 4 + Y * 3).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode.rgb(data, "here")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def same(data: bytes, expected: np.ndarray, tolerance: int = 0) -> None:
    decoded = pixels(data)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= tolerance


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png16(values: np.ndarray, colour_type: int, *extra: bytes) -> bytes:
    """A 16-bit PNG of uint16 (H, W, C), written by hand, since Pillow cannot."""
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "TGA", "PCX", "SGI", "QOI"])
def test_lossless_rgb(form):
    same(encoded(Image.fromarray(PICTURE), form), PICTURE)


@pytest.mark.parametrize(
    ("form", "options"),
    [("WEBP", {"lossless": True}), ("JPEG2000", {}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"})],
)
def test_modern_forms(form, options):
    same(encoded(Image.fromarray(PICTURE), form, **options), PICTURE, tolerance=4)


def test_jpeg():
    same(encoded(Image.fromarray(PICTURE), "JPEG", quality=98, subsampling=0), PICTURE, tolerance=6)


def test_rgb_takes_the_fast_path():
    image = decode.rgb(encoded(Image.fromarray(PICTURE), "JPEG"), "here")
    assert image.format == "JPEG"  # the opened image itself, not a copy


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF"])
def test_grey(form):
    expected = np.repeat(GREY[:, :, None], 3, axis=2)
    same(encoded(Image.fromarray(GREY), form), expected, tolerance=4 if form == "JPEG" else 0)


def test_two_levels():
    bits = GREY > 90
    same(encoded(Image.fromarray(bits), "PNG"), np.repeat(bits[:, :, None], 3, axis=2) * 255)


def test_palette():
    colours = (PICTURE // 64) * 64
    palette = Image.fromarray(colours).quantize(256)
    assert palette.mode == "P"
    for form in ("PNG", "GIF", "BMP"):
        same(encoded(palette, form), colours)


def test_palette_with_transparent_entries():
    image = Image.fromarray((X >= 20).astype(np.uint8) + (Y >= 12).astype(np.uint8) * 2, "P")
    image.putpalette([255, 0, 0, 0, 200, 0, 0, 0, 100, 9, 9, 9])
    decoded = pixels(encoded(image, "PNG", transparency=bytes([0, 255, 51, 255])))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 39].tolist() == [0, 200, 0]
    assert np.abs(decoded[23, 0] - [204, 204, 224]).max() <= 1  # one fifth of (0, 0, 100) on white
    assert decoded[23, 39].tolist() == [9, 9, 9]
    assert pixels(encoded(image, "GIF", transparency=0))[0, 0].tolist() == [255, 255, 255]


def test_alpha_on_white():
    alpha = np.clip(X * 7, 0, 255).astype(np.uint8)
    weight = alpha[:, :, None] / 255
    expected = np.round(PICTURE * weight + 255 * (1 - weight))
    rgba = Image.fromarray(np.dstack([PICTURE, alpha]))
    same(encoded(rgba, "PNG"), expected, tolerance=1)
    same(encoded(rgba, "TIFF"), expected, tolerance=1)
    same(encoded(rgba, "WEBP", lossless=True, exact=True), expected, tolerance=1)
    grey = np.repeat(GREY[:, :, None], 3, axis=2)
    expected = np.round(grey * weight + 255 * (1 - weight))
    same(encoded(Image.fromarray(np.dstack([GREY, alpha])), "PNG"), expected, tolerance=1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_one_transparent_colour(mode):
    image = Image.new(mode, (8, 8), 5 if mode == "L" else (5, 6, 7))
    image.paste(90 if mode == "L" else (90, 91, 92), (4, 0, 8, 8))
    decoded = pixels(encoded(image, "PNG", transparency=5 if mode == "L" else (5, 6, 7)))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 7].tolist() == ([90] * 3 if mode == "L" else [90, 91, 92])


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (3, 2), (4, 6)])
def test_16_bit_png_is_rounded(channels, colour_type):
    values = ((np.arange(24 * 40 * channels) * 521) % 65536).astype(np.uint16).reshape(24, 40, channels)
    if channels == 4:
        values[:, :, 3] = 65535
    expected = np.round(np.broadcast_to(values[:, :, :3], (24, 40, 3)) / 257)
    same(png16(values, colour_type), expected)


def test_16_bit_grey_with_alpha():
    values = np.stack([GREY.astype(np.uint16) * 257, (X * 1600).astype(np.uint16)], axis=2)
    weight = values[:, :, 1:] / 65535
    same(png16(values, 4), np.round(GREY[:, :, None].repeat(3, 2) * weight + 255 * (1 - weight)), tolerance=2)


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (3, 2)])
def test_16_bit_transparent_colour(channels, colour_type):
    values = np.full((4, 4, channels), 1000, np.uint16)
    values[:, 2:] = 1001  # the same after rounding: only exact values tell them apart
    decoded = pixels(png16(values, colour_type, chunk(b"tRNS", struct.pack(">H", 1000) * channels)))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 3].tolist() == [4, 4, 4]


@pytest.mark.parametrize("form", ["TIFF", "PPM"])
def test_16_bit_grey_elsewhere(form):
    values = (GREY.astype(np.uint16) * 257) + 100
    same(encoded(Image.fromarray(values), form), np.round(values / 257)[:, :, None].repeat(3, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(dtype):
    data = encoded(Image.fromarray(GREY.astype(dtype)), "TIFF")
    with pytest.raises(errors.DataError, match=r"a.tif: cannot be decoded .*range is unknown; store 8 or 16 bits"):
        decode.rgb(data, "a.tif")


def test_cmyk():
    cmyk = Image.fromarray(PICTURE).convert("CMYK")
    expected = np.asarray(cmyk.convert("RGB")).astype(int)
    assert np.abs(expected - PICTURE).max() <= 2
    same(encoded(cmyk, "TIFF"), PICTURE, tolerance=2)
    # Pillow writes CMYK JPEGs as Adobe does: inverted, with the APP14 mark.
    data = encoded(cmyk, "JPEG", quality=98)
    assert b"Adobe" in data
    same(data, PICTURE, tolerance=8)


def test_cmyk_without_adobe_mark_is_not_inverted():
    data = encoded(
        Image.fromarray(255 - np.asarray(Image.fromarray(PICTURE).convert("CMYK")), "CMYK"), "JPEG", quality=98
    )
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    same(data[:start] + data[start + 2 + length :], PICTURE, tolerance=8)


def test_colour_profile_is_ignored():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    same(encoded(Image.fromarray(PICTURE), "PNG", icc_profile=profile), PICTURE)


STORED = {  # how the upright picture must lie in the file for a viewer to see it upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(form, orientation):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](PICTURE)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    same(encoded(stored, form, exif=exif, **options), PICTURE, tolerance=6 if form == "JPEG" else 0)


def test_damaged_exif_is_no_bad_image():
    data = encoded(Image.fromarray(PICTURE), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f junk")
    same(data, PICTURE)


def test_first_frame():
    first, second = Image.fromarray(PICTURE), Image.new("RGB", (40, 24))
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        same(encoded(first, form, save_all=True, append_images=[second], **options), PICTURE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.jpg: is empty. Replace or remove the file"),
        (b"hello, this is text", "a.jpg: is not an image of a known format. Replace or remove the file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.jpg: is not an image of a known format"),
    ],
)
def test_not_an_image(data, message):
    with pytest.raises(errors.DataError) as caught:
        decode.rgb(data, "a.jpg")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(form, share):
    noise = np.frombuffer(np.random.Philox(key=1).random_raw(64 * 64 * 3 // 8).tobytes(), np.uint8)
    data = encoded(Image.fromarray(noise.reshape(64, 64, 3)), form)
    with pytest.raises(errors.DataError, match=r"^a: (cannot be decoded \(|is not an image)"):
        decode.rgb(data[: int(len(data) * share)], "a")


def header_only(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "limit", "got"),
    [
        ((60_000, 60_000), decode.MAX_PIXELS, "more than 178,956,970"),  # Pillow raises
        ((10_000, 10_000), decode.MAX_PIXELS, "10000 x 10000"),  # Pillow warns
        ((101, 100), 10_000, "101 x 100"),  # Pillow is content
    ],
)
def test_bomb_is_refused_from_its_header(size, limit, got):
    with pytest.raises(errors.DataError) as caught:
        decode.rgb(header_only(*size), "a.png", limit)
    condition = f"a.png: pixel count must be at most {limit:,} (max_pixels). Got {got}."
    assert str(caught.value).startswith(condition)


def test_extension_by_content():
    image = Image.fromarray(PICTURE)
    extensions = [decode.detect_extension(encoded(image, form)) for form in ("JPEG", "PNG", "WEBP", "BMP")]
    assert extensions == ["jpg", "png", "webp", None]


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"])
def test_decoders_say_nothing_beside_a_refusal(compression, capfd, caplog):
    """libtiff writes on file descriptor 2, and Pillow logs; of 200 changed files, whatever each gives."""
    picture = Image.fromarray(PICTURE)
    data = encoded(picture.convert("1") if compression == "group4" else picture, "TIFF", compression=compression)
    refusals = []
    for place in range(8, len(data), max(1, len(data) // 200)):
        try:
            decode.rgb(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :], "here")
        except errors.DataError as error:
            refusals.append(str(error))
    assert refusals
    assert "\n" not in "".join(refusals)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
