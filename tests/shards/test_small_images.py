"""Small images are decoded once, and give the pixels that decoding gives."""

import io

import numpy as np
import pytest
from PIL import Image

from teachonce.core import errors
from teachonce.shards import decode, small_images


def png(side: int, seed: int = 0) -> bytes:
    levels = np.random.Generator(np.random.Philox(key=seed)).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_second_time_gives_the_array_of_the_first():
    images = small_images.SmallImages()
    first = images.rgb_pixels(png(16), "here")
    assert images.rgb_pixels(png(16), "elsewhere") is first
    assert not first.flags.writeable
    np.testing.assert_array_equal(first, decode.rgb_pixels(png(16), "here"))
    assert images.rgb_pixels(png(16, seed=1), "here") is not first


@pytest.mark.parametrize("side", [60, 100])
def test_larger_images_are_decoded_each_time(side):
    """By the size of their file, or of their pixels."""
    data = png(side) if side == 60 else encoded_flat(side)
    images = small_images.SmallImages()
    assert images.rgb_pixels(data, "here") is not images.rgb_pixels(data, "here")


def encoded_flat(side: int) -> bytes:
    """A small file of many pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_has_no_room_any_more_is_decoded_each_time_and_the_first_stays():
    size = len(png(16)) + 16 * 16 * 3
    images = small_images.SmallImages(max_bytes=size)
    first = images.rgb_pixels(png(16), "here")
    other = images.rgb_pixels(png(16, seed=1), "here")
    assert images.rgb_pixels(png(16, seed=1), "here") is not other
    assert images.rgb_pixels(png(16), "here") is first


def test_a_damaged_image_is_refused_each_time_by_where_it_is():
    images = small_images.SmallImages()
    for where in ("a.tar:1", "b.tar:2"):
        with pytest.raises(errors.DataError, match=f"^{where}: cannot be decoded"):
            images.rgb_pixels(png(16)[:60], where)
