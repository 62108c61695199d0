"""What a file may ask of its decoder.

python -m pytest tests/shards/test_decode_limits.py -s      # prints time and memory of each worst case let through
"""

import json
import subprocess
import sys
from pathlib import Path

import bombs
import pytest
from PIL import Image

from teachonce.core import errors
from teachonce.shards import decode

MOST_RESIDENT_BYTES = 640 << 20
"""Beyond what the process has before; `effort` promises half a gigabyte, and NumPy and Pillow keep some for later."""
LEVELS = (35_800_000, 17_900_000, 8_900_000, 7_100_000, 4_400_000, 1_000_000, 3_000)
"""Numbers of pixels that just pass for some kind of image; one of them is the most that this one may have."""

PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import bombs
import numpy as np
from teachonce.core import errors
from teachonce.shards import decode
from teachonce.views import draw, render, view_policy

def status(name):
    return [int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(name)][0]

name, path = sys.argv[1:]
data = Path(path).read_bytes()
decode.rgb(bombs.png(100, 16, 2), "first")
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
before, began = status("VmRSS"), time.process_time()
try:
    image = decode.rgb(data, name)
    text = ""
    if name == "png_wide":
        # A resize holds rows of it as wide as it is.
        policy = view_policy.Policy()
        render.to_pixels(np.asarray(image), draw.view_params(policy, name, 0), 224)
except errors.DataError as error:
    text = str(error)
print(json.dumps([text, time.process_time() - began, status("VmHWM") - before]))
"""


def refusal(data: bytes) -> str:
    with pytest.raises(errors.DataError) as caught:
        decode.rgb(data, "a.png")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def decoder_cases() -> list:
    """All cases, of which the nightly tests take all but the first of each decoder: making them takes minutes."""
    first = {name.partition("_")[0]: name for name in reversed(bombs.CASES)}.values()
    return [pytest.param(name, marks=() if name in first else pytest.mark.nightly) for name in bombs.CASES]


@pytest.mark.slow
@pytest.mark.parametrize("name", decoder_cases())
def test_the_worst_that_is_let_through(name, tmp_path):
    for pixels in LEVELS:
        data = bombs.CASES[name](pixels)
        assert len(data) <= 2_000_000
        (tmp_path / "data").write_bytes(data)
        arguments = [sys.executable, "-W", "ignore", "-c", PROGRAM, name, str(tmp_path / "data")]
        tests = Path(__file__).parents[1]
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            cwd=tests.parent,
            env={"PYTHONPATH": f"{tests / 'support'}:{tests.parent / 'pipeline'}", "OMP_NUM_THREADS": "1"},
        )
        text, took_s, resident_bytes = json.loads(done.stdout)
        assert "\n" not in text
        if "must be at most" not in text:
            break
    print(f"{name}: {pixels:,} pixels, {len(data):,} bytes: {took_s:.2f} s, {resident_bytes >> 20} MB {text[:60]}")
    assert resident_bytes < MOST_RESIDENT_BYTES


@pytest.mark.parametrize(
    ("name", "pixels", "message"),
    [
        ("jpeg_scans_progressive", 100_000, "pixel count must be at most 3,603 in a file of"),
        ("jpeg_scans_baseline", 100_000, "pixel count must be at most 3,601 in a file of"),
        ("png_rgb16", 7_300_000, "pixel count must be at most 7,200,000 in a file of"),
        ("png_rgba8_interlaced", 19_000_000, "pixel count must be at most 18,000,000 in a file of"),
        ("png_tall", 3_000_000, "bytes of this kind. Got 51,000,000 to decode for 1 x 3000000."),
        ("png_profiles", 64, "colour profiles must be at most 16. Got 941."),
        ("webp_animation", 40_000_000, "pixel count must be at most 18,000,000 in a file of 140 bytes of this kind."),
        ("gif_canvas", 40_000_000, "pixel count must be at most 18,000,000 in a file of 50 bytes of this kind."),
        ("bmp_line_ends", 5_000_000, "pixel count must be at most 4,500,000 in a file of"),
        ("ppm_comments", 64, "comments must be at most 256. Got 490000."),
        ("tiff_large_tile", 64, "Got 1,600,000,000 to decode for 8 x 8."),
        ("jpeg2000_tiles", 5_000_000, "pixel count must be at most 4,500,000 in a file of"),
        ("png_wide", 4_600_000, "Got 36,800,000 to decode for 4600000 x 1."),
    ],
)
def test_what_takes_too_long_is_refused_unread(name, pixels, message):
    line = refusal(bombs.CASES[name](pixels))
    assert message in line
    assert line.endswith("Save the picture again at a smaller size, or remove the file")


def test_texts_without_end():
    assert "cannot be decoded (Too much memory used in text chunks" in refusal(bombs.png_texts(64))


@pytest.mark.parametrize(
    ("mode", "form", "size"),
    [
        ("RGB", "JPEG", (6000, 4000)),  # a camera's
        ("1", "TIFF", (4960, 7016)),  # a page at 600 dots an inch
        ("L", "PNG", (4960, 7016)),
        ("RGB", "PNG", (5000, 5000)),  # nothing but white
        ("RGBA", "PNG", (3840, 2160)),  # a screen
        ("RGB", "AVIF", (6000, 4000)),
        ("RGB", "WEBP", (4000, 3000)),
    ],
)
def test_honest_images_of_one_colour(mode, form, size, tmp_path):
    options = {"compression": "group4"} if form == "TIFF" else {}
    Image.new(mode, size, 255 if mode in "1L" else "white").save(tmp_path / "a", form, **options)
    data = (tmp_path / "a").read_bytes()
    assert len(data) < bombs.MOST_BYTES
    image = decode.rgb(data, "a")
    assert (image.size, image.getpixel((7, 7))) == (size, (255, 255, 255))


def test_more_bytes_may_be_more_pixels():
    """The same picture, followed by what no decoder reads."""
    data = bombs.png_rgba8_interlaced(19_000_000)
    refusal(data)
    assert decode.rgb(data + bytes(1_200_000 - len(data)), "a").width == bombs.side(19_000_000)


@pytest.mark.parametrize("count", [1, 10, 12])
def test_progressive_photographs(count, tmp_path):
    """Ten scans are what encoders make; some make a few more."""
    data = bombs.jpeg(4_000_000, "RGB", quality=90, progressive=True)
    assert data.count(b"\xff\xda") == 10
    at = data.rindex(b"\xff\xda")
    assert decode.rgb(data[:-2] + data[at:-2] * (count - 1) + data[-2:], "a").width == 2000
