"""Real images, changed at random: decoded or refused in one line, soon, and in little memory.

python -m pytest tests/shards/test_fuzz_images.py -s      # prints the count of each outcome
"""

import collections
import io
import random  # noqa: TID251 - a seeded stream of test cases, no view and no order of training
import time

import address_space
import changes
import numpy as np
import pytest
from PIL import Image

from teachonce.core import errors
from teachonce.shards import decode

LIMIT_S = 5.0
"""For one change; an honest image takes a thousandth of it."""
HEADROOM_BYTES = 1 << 30
FORMS = {
    "jpeg": ("JPEG", "RGB", {}),
    "progressive": ("JPEG", "RGB", {"progressive": True}),
    "inks": ("JPEG", "CMYK", {}),
    "png": ("PNG", "RGB", {}),
    "palette": ("PNG", "P", {"transparency": bytes(256)}),
    "deep": ("PNG", "I;16", {}),
    "webp": ("WEBP", "RGB", {}),
    "lossless": ("WEBP", "RGBA", {"lossless": True}),
    "gif": ("GIF", "P", {}),
    "tiff": ("TIFF", "RGB", {}),
    "deflate": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    "lzw": ("TIFF", "L", {"compression": "tiff_lzw"}),
    "jpeg in tiff": ("TIFF", "RGB", {"compression": "jpeg"}),
    "bmp": ("BMP", "RGB", {}),
    "ppm": ("PPM", "RGB", {}),
    "tga": ("TGA", "RGBA", {"compression": "tga_rle"}),
    "pcx": ("PCX", "RGB", {}),
    "sgi": ("SGI", "RGB", {}),
    "qoi": ("QOI", "RGB", {}),
    "avif": ("AVIF", "RGB", {}),
    "jpeg 2000": ("JPEG2000", "RGB", {}),
}
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def encoded(form: str, mode: str, options: dict[str, object]) -> bytes:
    raw = np.random.Philox(key=5).random_raw(40 * 30 * 3 // 8).tobytes()
    image = Image.fromarray(np.frombuffer(raw, np.uint8).reshape(30, 40, 3)).resize((60, 44))
    image = Image.new("I;16", image.size, 777) if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    extra = {"exif": exif, "icc_profile": b"profile" * 9} if form in {"JPEG", "PNG", "WEBP", "TIFF"} else {}
    stream = io.BytesIO()
    image.save(stream, form, **extra, **options)
    return stream.getvalue()


def number(data: bytearray, at: int, draw: random.Random) -> None:
    size = draw.choice((1, 2, 4))
    value = draw.choice(NUMBERS) % (1 << 8 * size)
    data[at : at + size] = value.to_bytes(size, draw.choice(("big", "little")))


def flip(data: bytearray, at: int, draw: random.Random) -> None:
    data[at] ^= 1 << draw.randrange(8)


def cut(data: bytearray, at: int, draw: random.Random) -> None:
    del data[max(2, at) :]


def double(data: bytearray, at: int, draw: random.Random) -> None:
    data[at:at] = data[at : at + draw.choice((1, 8, 300))]


def drop(data: bytearray, at: int, draw: random.Random) -> None:
    del data[at : at + draw.choice((1, 4, 60))]


def zero(data: bytearray, at: int, draw: random.Random) -> None:
    data[at : at + 16] = bytes(16)


def changed(data: bytes, draw: random.Random) -> bytes:
    """One to four changes, most of them near the front, where headers lie."""
    copy = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = int(len(copy) * draw.random() ** draw.choice((1, 3, 6)))
        if at < len(copy):
            draw.choice((number, flip, cut, double, drop, zero))(copy, at, draw)
    return bytes(copy)


@pytest.fixture
def bounded():
    with address_space.limited(HEADROOM_BYTES):
        yield


def test_a_changed_image_is_decoded_or_refused(bounded):
    seeds = {name: encoded(*form) for name, form in FORMS.items()}
    assert all(decode.rgb(data, name).width in {60, 44} for name, data in seeds.items())
    outcomes: collections.Counter[str] = collections.Counter()
    escaped = []
    for seed in range(changes.COUNT):
        draw = random.Random(seed)  # noqa: S311
        name = draw.choice(list(seeds))
        data, began = changed(seeds[name], draw), time.perf_counter()
        try:
            image = decode.rgb(data, "a")
            outcome = "decoded" if image.mode == "RGB" else f"mode {image.mode}"
        except errors.DataError as error:
            outcome = "refused" if len(str(error)) < 400 and "\n" not in str(error) else "long"
            if "MemoryError" in str(error):
                outcome = "memory"
        except Exception as error:  # collected: a run shows all holes at once
            outcome = f"{type(error).__name__}: {error}"
        took_s = time.perf_counter() - began
        if outcome not in {"decoded", "refused"} or took_s > LIMIT_S:
            escaped.append(f"{seed} ({name}): {outcome}, {took_s:.1f} s")
        outcomes[outcome] += 1
    print(f"\n{outcomes.total()} changes: {dict(outcomes)}")
    assert not escaped, "\n".join(escaped)
    assert min(outcomes["decoded"], outcomes["refused"]) > outcomes.total() / 10
