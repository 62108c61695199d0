"""Files of under a megabyte that cost as much as their format allows."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

MOST_BYTES = 1_000_000
CASES: dict[str, Callable[[int], bytes]] = {}
"""Name → the file for a number of pixels, and for how many things of its kind a megabyte holds."""


def case(make: Callable[[int], bytes]) -> Callable[[int], bytes]:
    CASES[make.__name__] = make
    return make


def side(pixels: int) -> int:
    return int(pixels**0.5)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(pixels: int, depth: int, colour: int, *, interlaced: int = 0, extra: bytes = b"") -> bytes:
    edge, channels = side(pixels), {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", edge, edge, depth, colour, 0, 0, interlaced)
    line = -(-edge * depth * channels // 8) + 1
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(line * 64)) for _ in range(edge // 64 + 2 + interlaced * 40))
    data += packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def palette(count: int) -> bytes:
    return chunk(b"PLTE", bytes(3 * count)) + chunk(b"tRNS", bytes(count))


@case
def png_rgb16(pixels: int) -> bytes:
    return png(pixels, 16, 2)


@case
def png_rgba16(pixels: int) -> bytes:
    return png(pixels, 16, 6)


@case
def png_rgba16_interlaced(pixels: int) -> bytes:
    return png(pixels, 16, 6, interlaced=1)


@case
def png_rgb16_transparent(pixels: int) -> bytes:
    return png(pixels, 16, 2, extra=chunk(b"tRNS", bytes(6)))


@case
def png_rgb8(pixels: int) -> bytes:
    return png(pixels, 8, 2)


@case
def png_rgba8(pixels: int) -> bytes:
    return png(pixels, 8, 6)


@case
def png_grey16(pixels: int) -> bytes:
    return png(pixels, 16, 0)


@case
def png_grey16_alpha(pixels: int) -> bytes:
    return png(pixels, 16, 4)


@case
def png_rgba8_interlaced(pixels: int) -> bytes:
    return png(pixels, 8, 6, interlaced=1)


@case
def png_palette_transparent(pixels: int) -> bytes:
    return png(pixels, 8, 3, extra=palette(256))


@case
def png_palette_1_bit_interlaced(pixels: int) -> bytes:
    return png(pixels, 1, 3, interlaced=1, extra=palette(2))


@case
def png_1_bit(pixels: int) -> bytes:
    return png(pixels, 1, 0)


def stretched(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes((width + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@case
def png_tall(pixels: int) -> bytes:
    return stretched(1, pixels)


@case
def png_wide(pixels: int) -> bytes:
    return stretched(pixels, 1)


@case
def png_texts(_: int) -> bytes:
    one = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20), 9))
    return png(64, 8, 2, extra=one * (MOST_BYTES // (len(one) + 8)))


@case
def png_international_texts(_: int) -> bytes:
    one = chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(1 << 20), 9))
    return png(64, 8, 2, extra=one * (MOST_BYTES // (len(one) + 8)))


@case
def png_profiles(_: int) -> bytes:
    one = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20), 9))
    return png(64, 8, 2, extra=one * (MOST_BYTES // (len(one) + 8)))


@case
def png_empty_chunks(_: int) -> bytes:
    return png(64, 8, 2, extra=chunk(b"zZZz", b"") * 80_000)


@case
def png_text_chunks(_: int) -> bytes:
    return png(64, 8, 2, extra=chunk(b"tEXt", b"a\0") * 70_000)


@case
def png_animation_chunks(_: int) -> bytes:
    return png(64, 8, 2, extra=chunk(b"acTL", bytes(8)) * 45_000)


@case
def png_empty_data_chunks(_: int) -> bytes:
    whole = png(1 << 20, 8, 2)
    at = whole.index(b"IDAT") - 4
    return whole[:at] + chunk(b"IDAT", b"") * 80_000 + whole[at:]


@case
def png_exif(_: int) -> bytes:
    return png(64, 8, 2, extra=chunk(b"eXIf", tiff_directory(900_000)))


@case
def png_exif_in_text(_: int) -> bytes:
    raw = b"\nexif\n 1000\n" + b"00" * 450_000
    return png(64, 8, 2, extra=chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)))


def tiff_directory(size: int, count: int = 30_000) -> bytes:
    """EXIF whose every entry claims most of it."""
    entries = b"".join(struct.pack("<HHII", tag, 7, size - 13 * count, 8) for tag in range(1000, 1000 + count))
    return (b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4)).ljust(size, b"\0")


def jpeg(pixels: int, mode: str = "L", **options: object) -> bytes:
    edge, stream = side(pixels), io.BytesIO()
    Image.new(mode, (edge, edge)).save(stream, "JPEG", **options)
    return stream.getvalue()


@case
def jpeg_grey(pixels: int) -> bytes:
    return jpeg(pixels, "L", quality=1, optimize=True)


@case
def jpeg_colour(pixels: int) -> bytes:
    return jpeg(pixels, "RGB", quality=1, optimize=True)


@case
def jpeg_inks(pixels: int) -> bytes:
    return jpeg(pixels, "CMYK", quality=1, optimize=True)


@case
def jpeg_colour_turned(pixels: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 5
    return jpeg(pixels, "RGB", quality=1, optimize=True, exif=exif)


def scans(pixels: int, *, progressive: bool) -> bytes:
    """The last scan of a JPEG as often as a megabyte holds it."""
    data = jpeg(min(pixels, 8_000_000), "RGB", quality=1, optimize=True, progressive=progressive)
    if not progressive:
        # A component by itself: the decoder then keeps the coefficients of the whole image and takes further scans.
        at = data.index(b"\xff\xda")
        data = data[:at] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\0" * 8 + b"\xff\xd9"
    at = data.rindex(b"\xff\xda")
    last = data[at : at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]]
    room = MOST_BYTES - len(data)
    return data[:-2] + last * (room // len(last)) + b"\xff\xd9"


@case
def jpeg_scans_progressive(pixels: int) -> bytes:
    return scans(pixels, progressive=True)


@case
def jpeg_scans_baseline(pixels: int) -> bytes:
    return scans(pixels, progressive=False)


def segments(*segment: bytes) -> bytes:
    data = jpeg(64, "RGB")
    return data[:2] + b"".join(segment) + data[2:]


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


@case
def jpeg_segments(_: int) -> bytes:
    return segments(segment(0xE5, b"") * 240_000)


@case
def jpeg_filling(_: int) -> bytes:
    return segments(b"\xff" * 990_000)


@case
def jpeg_exif_segments(_: int) -> bytes:
    """Without a density of its own, so that Pillow looks for it in there."""
    data = tiff_directory(950_000)
    parts = [segment(0xE1, b"Exif\0\0" + data[at : at + 65_000]) for at in range(0, len(data), 65_000)]
    whole = jpeg(64, "RGB")
    return whole[:2] + b"".join(parts) + whole[2 + 18 :]


@case
def jpeg_exif_many_segments(_: int) -> bytes:
    return segments(segment(0xE1, b"Exif\0\0a") * 85_000)


@case
def jpeg_resources(_: int) -> bytes:
    return segments(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\1\1\0\0\0\0\0\0" * 5400) * 15)


@case
def jpeg_pictures(_: int) -> bytes:
    """Directory of several pictures, each of which is claimed to be long."""
    return segments(segment(0xE2, b"MPF\0" + tiff_directory(65_000, 4_000)) * 15)


def saved(form: str, mode: str, pixels: int, **options: object) -> bytes:
    edge, stream = side(pixels), io.BytesIO()
    Image.new(mode, (edge, edge)).save(stream, form, **options)
    return stream.getvalue()


@case
def webp_lossless(pixels: int) -> bytes:
    return saved("WEBP", "RGBA", min(pixels, 16383**2), lossless=True, exact=True)


@case
def webp_lossy(pixels: int) -> bytes:
    return saved("WEBP", "RGB", min(pixels, 16383**2), quality=1, method=0)


@case
def webp_lossy_alpha(pixels: int) -> bytes:
    return saved("WEBP", "RGBA", min(pixels, 16383**2), quality=1, method=0)


@case
def webp_animation(pixels: int) -> bytes:
    """A frame of one pixel on a large canvas."""
    edge = side(min(pixels, 16383**2))
    stream = io.BytesIO()
    small = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    small[0].save(stream, "WEBP", save_all=True, append_images=small[1:], lossless=True)
    data = bytearray(stream.getvalue())
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (edge - 1).to_bytes(3, "little") * 2
    return bytes(data)


@case
def webp_exif(_: int) -> bytes:
    return saved("WEBP", "RGB", 64, exif=tiff_directory(900_000))


@case
def webp_frames(_: int) -> bytes:
    stream = io.BytesIO()
    small = [Image.new("RGB", (16, 16), (number % 256, number // 256, 0)) for number in range(8000)]
    small[0].save(stream, "WEBP", save_all=True, append_images=small[1:], lossless=True, method=0)
    return stream.getvalue()


@case
def avif_colour(pixels: int) -> bytes:
    return saved("AVIF", "RGB", min(pixels, 16384**2), quality=1, speed=10)


@case
def avif_alpha(pixels: int) -> bytes:
    return saved("AVIF", "RGBA", min(pixels, 16384**2), quality=1, speed=10, subsampling="4:4:4")


@case
def avif_exif(_: int) -> bytes:
    with warnings.catch_warnings(action="ignore"):
        return saved("AVIF", "RGB", 64, exif=tiff_directory(900_000))


def gif(pixels: int, *, interlaced: bool = False, comments: bytes = b"") -> bytes:
    edge, stream = side(pixels), io.BytesIO()
    Image.new("P", (edge, edge)).save(stream, "GIF", interlace=interlaced, transparency=0)
    data = stream.getvalue()
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 128 else 0)
    return data[:at] + comments + data[at:]


@case
def avif_that_claims_less(pixels: int) -> bytes:
    edge, data = side(pixels), avif_colour(pixels)
    return data.replace(struct.pack(">II", edge, edge), struct.pack(">II", 8, 8))


@case
def gif_interlaced(pixels: int) -> bytes:
    return gif(pixels, interlaced=True)


@case
def gif_canvas(pixels: int) -> bytes:
    data = bytearray(gif(16))
    data[6:10] = struct.pack("<HH", *(min(side(pixels), 65535),) * 2)
    return bytes(data)


@case
def gif_comments(_: int) -> bytes:
    return gif(64, comments=b"!\xfe" + b"\x01a" * 490_000 + b"\0")


@case
def gif_many_comments(_: int) -> bytes:
    return gif(64, comments=b"!\xfe\x01a\0" * 190_000)


@case
def jpeg2000_solid(pixels: int) -> bytes:
    return saved("JPEG2000", "RGB", pixels, irreversible=True, quality_mode="rates", quality_layers=[1000])


@case
def jpeg2000_alpha(pixels: int) -> bytes:
    return saved("JPEG2000", "RGBA", pixels)


@case
def jpeg2000_tiles(pixels: int) -> bytes:
    edge = side(pixels)
    return saved("JPEG2000", "RGB", pixels, tile_size=(-(-edge // 110),) * 2)


@case
def jpeg2000_blocks(pixels: int) -> bytes:
    return saved("JPEG2000", "RGB", min(pixels, 4_700_000), codeblock_size=(4, 4))


@case
def jpeg2000_layers(pixels: int) -> bytes:
    return saved("JPEG2000", "RGB", min(pixels, 9_000_000), quality_layers=[1000.0 - number for number in range(99)])


@case
def jpeg2000_that_claims_less(pixels: int) -> bytes:
    edge, data = side(pixels), jpeg2000_solid(pixels)
    return data.replace(b"ihdr" + struct.pack(">II", edge, edge), b"ihdr" + struct.pack(">II", 8, 8))


@case
def pcx(pixels: int) -> bytes:
    return saved("PCX", "RGB", min(pixels, 18_000_000))


@case
def sgi_runs(pixels: int) -> bytes:
    """Each line of each channel is the same run."""
    edge = side(pixels) // 127 * 127
    header = struct.pack(">hBBHHHHii", 474, 1, 1, 3, edge, edge, 4, 0, 255).ljust(512, b"\0")
    line = b"\x7f\0" * (edge // 127) + b"\0"
    at = 512 + edge * 4 * 8
    return header + struct.pack(">I", at) * (edge * 4) + struct.pack(">I", len(line)) * (edge * 4) + line


@case
def tga_runs(pixels: int) -> bytes:
    edge = side(min(pixels, 25_000_000)) // 128 * 128
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, edge, edge, 32, 8)
    return header + (b"\xff" + bytes(4)) * (edge * edge // 128)


@case
def qoi_runs(pixels: int) -> bytes:
    edge = side(pixels)
    return (
        b"qoif" + struct.pack(">IIBB", edge, edge, 4, 0) + b"\xfd" * min(990_000, pixels // 62 + 9) + bytes(7) + b"\1"
    )


@case
def qoi_steps(_: int) -> bytes:
    return b"qoif" + struct.pack(">IIBB", 990, 1000, 4, 0) + b"\x6a" * 990_000 + bytes(7) + b"\1"


def bmp(width: int, height: int, data: bytes, *, bits: int = 8, compression: int = 1) -> bytes:
    colours = struct.pack("<BBBB", 1, 2, 3, 0) * (1 << bits)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 1 << bits, 0)
    start = 14 + len(header) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + colours + data


@case
def bmp_runs(pixels: int) -> bytes:
    edge = side(pixels)
    return bmp(
        edge, edge, (b"\xff\1" * (edge // 255) + bytes([edge % 255, 1]) + b"\0\0") * (495_000 // (edge // 255 + 2))
    )


@case
def bmp_runs_of_4_bits(pixels: int) -> bytes:
    edge = side(pixels)
    data = (b"\xff\1" * (edge // 255) + bytes([edge % 255, 1]) + b"\0\0") * (495_000 // (edge // 255 + 2))
    return bmp(edge, edge, data, bits=4, compression=2)


@case
def bmp_steps(pixels: int) -> bytes:
    return bmp(pixels, 1, b"\0\2\xff\xff" * 240_000)


@case
def bmp_line_ends(pixels: int) -> bytes:
    """Each line is one pixel and an end, which is filled up one by one."""
    edge = side(pixels)
    return bmp(edge, edge, b"\1\1\0\0" * min(edge, 240_000))


@case
def bmp_empty_runs(_: int) -> bytes:
    return bmp(1, 1000, b"\1\1" + b"\1\1" * 490_000)


@case
def ppm_bits(_: int) -> bytes:
    return b"P1 990 1000\n" + b"1" * 990_000


@case
def ppm_grey(_: int) -> bytes:
    return b"P2 490 1000 255\n" + b"1 " * 490_000


@case
def ppm_deep(_: int) -> bytes:
    return b"P2 490 1000 65535\n" + b"1 " * 490_000


@case
def ppm_comments(_: int) -> bytes:
    return b"P2 490 1000 255\n" + b"#\n" * 490_000


@case
def ppm_header_comments(_: int) -> bytes:
    return b"P2\n" + b"#\n" * 490_000 + b"1 1 255 1"


@case
def ppm_raw_range(_: int) -> bytes:
    return b"P6 330 1000 100\n" + bytes(990_000)


@case
def ppm_raw_deep(_: int) -> bytes:
    return b"P5 490 1000 1000\n" + bytes(980_000)


def tiff(pixels: int, mode: str, compression: str, **options: object) -> bytes:
    return saved("TIFF", mode, pixels, compression=compression, **options)


@case
def tiff_deflate(pixels: int) -> bytes:
    return tiff(pixels, "RGBA", "tiff_deflate")


@case
def tiff_inks(pixels: int) -> bytes:
    return tiff(pixels, "CMYK", "tiff_deflate")


@case
def tiff_lzw(pixels: int) -> bytes:
    return tiff(min(pixels, 30_000_000), "RGB", "tiff_lzw")


@case
def tiff_fax(pixels: int) -> bytes:
    return tiff(pixels, "1", "group4")


@case
def tiff_lzma(pixels: int) -> bytes:
    return tiff(pixels, "RGB", "lzma")


@case
def tiff_zstd(pixels: int) -> bytes:
    return tiff(pixels, "RGB", "zstd")


@case
def tiff_jpeg(pixels: int) -> bytes:
    return tiff(min(pixels, 25_000_000), "RGB", "jpeg", quality=25)


def ifd(entries: list[tuple[int, int, int, int]], body: bytes = b"") -> bytes:
    """A little-endian TIFF whose first directory has these (tag, type, count, value)."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + body


def tiff_of(width: int, height: int, *entries: tuple[int, int, int, int], body: bytes = b"") -> bytes:
    base = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    base |= {entry[0]: entry[1:] for entry in entries}
    return ifd([(tag, *entry) for tag, entry in base.items()], body)


@case
def tiff_directory_of_claims(_: int) -> bytes:
    return tiff_directory(990_000)


@case
def tiff_tags(_: int) -> bytes:
    return tiff_of(8, 8, *((tag, 3, 1, 1) for tag in range(1000, 61_000)))


@case
def tiff_strips(_: int) -> bytes:
    """Each line is a strip, and all of them are one."""
    count = 120_000
    at = 8 + 2 + 12 * 9 + 4
    body = struct.pack("<I", at) * count + struct.pack("<I", 1) * count
    entries = ((273, 4, count, at), (278, 3, 1, 1), (279, 4, count, at + 4 * count))
    return tiff_of(1, count, *entries, body=body)


@case
def tiff_packed_strips(_: int) -> bytes:
    """As before, and each strip is the rest of the file to who reads it."""
    count = 60_000
    at = 8 + 2 + 12 * 9 + 4
    packed = zlib.compress(bytes(1)).ljust(400_000, b"\0")
    body = struct.pack("<I", at + 8 * count) * count + struct.pack("<I", len(packed)) * count + packed
    entries = ((259, 3, 1, 8), (273, 4, count, at), (278, 3, 1, 1), (279, 4, count, at + 4 * count))
    return tiff_of(1, count, *entries, body=body)


@case
def tiff_large_tile(_: int) -> bytes:
    at = 8 + 2 + 12 * 10 + 4
    packed = zlib.compress(bytes(1 << 20), 9)
    entries = ((259, 3, 1, 8), (322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, at), (325, 4, 1, len(packed)))
    return tiff_of(8, 8, *entries, body=packed)


@case
def tiff_small_tiles(_: int) -> bytes:
    edge = 16 * 240
    count = 240 * 240
    at = 8 + 2 + 12 * 10 + 4
    packed = zlib.compress(bytes(256))
    body = struct.pack("<I", at + 8 * count) * count + struct.pack("<I", len(packed)) * count + packed
    entries = ((259, 3, 1, 8), (322, 4, 1, 16), (323, 4, 1, 16), (324, 4, count, at), (325, 4, count, at + 4 * count))
    return tiff_of(edge, edge, *entries, body=body)


@case
def tiff_channels(_: int) -> bytes:
    return tiff_of(8, 8, (277, 3, 1, 60_000), body=bytes(4000))


def all_of(pixels: int) -> Iterator[tuple[str, bytes]]:
    for name, make in CASES.items():
        yield name, make(pixels)
