"""What a view costs on one core: `python tests/bench/bench_draw.py`.

Times are medians in µs; ratios compare with something measured in the same run, so that they travel between machines.
The last line is JSON.
"""

import hashlib
import io
import itertools
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from sklearn import datasets

from teachonce.views import draw, render
from teachonce.views.view_policy import Affine, ColorJitter, Policy, RandAugment, RandomErasing, RandomResizedCrop

FULL = Policy(
    crop=RandomResizedCrop(),
    flip=0.5,
    affine=Affine(degrees=5, shear=3),
    color_jitter=ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
    rand_augment=RandAugment(),
    erase=RandomErasing(),
)
DEIT = FULL.model_copy(update={"affine": None, "color_jitter": None})
CROP = Policy(crop=RandomResizedCrop())
SIZE = 224


def median_us(work: Callable[[int], object], count: int) -> float:
    """Median time of one call in µs, each with another number, so that nothing repeats."""
    taken = []
    for number in itertools.islice(itertools.count(), count):
        start = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(taken), 2)


def jpeg_500x375() -> bytes:
    photo = Image.fromarray(datasets.load_sample_image("china.jpg")).resize((500, 375))
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=75)
    return stream.getvalue()


def decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def measure() -> dict[str, float]:
    data = jpeg_500x375()
    image = np.asarray(decode(data))
    views = {"crop": CROP, "deit": DEIT, "full": FULL}
    drawn = {name: [draw.view_params(policy, f"k{n}", 0) for n in range(400)] for name, policy in views.items()}
    figures = {
        "blake2b_us": median_us(lambda n: hashlib.blake2b(b"crop.0/3/n01440764_%d" % n).digest(), 20_000),
        "decode_us": median_us(lambda _: decode(data), 100),
    }
    for name, policy in views.items():
        figures[f"draw_{name}_us"] = median_us(lambda n, p=policy: draw.view_params(p, f"n01440764_{n}", 3), 5_000)
        figures[f"apply_{name}_us"] = median_us(lambda n, v=drawn[name]: render.to_pixels(image, v[n], SIZE), 400)
    return figures


def main() -> None:
    figures = measure()
    for name, value in list(figures.items()):
        base = "blake2b_us" if name.startswith("draw") else "decode_us"
        if name.startswith(("draw", "apply")):
            figures[f"{name.removesuffix('_us')}_per_{base.removesuffix('_us')}"] = round(value / figures[base], 2)
    for name, value in figures.items():
        print(f"{name:32} {value:10.2f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
