"""What a view costs and how far it is from other libraries' views.

    python tests/bench/bench_render.py [--rounds 11]

Photographs of 500 × 375 pixels as JPEGs of about 50 kB, views of 224 pixels under DeiT's policy without mixing.
Processor time of one thread, everything in turn in every round; medians over the rounds, and of ratios within a round.

- differences: mean and largest difference of levels from Pillow's pixels (what renderer 0 made, and timm makes), for
  each operation in both directions and for the whole policy;
- distance from the exact bicubic crop, computed in float64: ours and Pillow's, for photographs and magnified digits;
- a view with its decoding, one view of an image and three, against timm's own transform of the same files;
- rendering alone, against Pillow's;
- beside them what others pay: torchvision's v2 transforms on tensors, and OpenCV and albumentations where installed.

Targets: at most 0.55 and 0.38 of timm's; rendering alone at most 0.45 of Pillow's.
"""

import argparse
import dataclasses
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm.data
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parent))
import photos
import pillow_views

from teachonce.shards import decode
from teachonce.views import draw, magnitudes, render
from teachonce.views.view_policy import Policy

IMAGES, SIZE, QUALITY, REPEATS = 48, 224, 88, 3
FILL = (124, 116, 104)


def differences(files: list[bytes]) -> dict[str, tuple[float, int]]:
    """By what is rendered: the mean and the largest difference from Pillow's pixels, in levels."""
    plain = draw.view_params(Policy(), "k", 0)
    images = [decode.rgb(data, "bench") for data in files]
    views = [render.to_pixels(np.asarray(image), plain, SIZE).transpose(1, 2, 0) for image in images]
    bases = [Image.fromarray(np.ascontiguousarray(view_HWC)) for view_HWC in views]
    found = {}
    for name in magnitudes.OPERATIONS:
        steps = [draw.Operation(name, argument) for argument in _arguments(name)]
        cases = [dataclasses.replace(plain, operations=(step,), fill=FILL) for step in steps]
        found[name] = _gap([(base, params) for base in bases for params in cases])
    for interpolation in ("bicubic", "bilinear"):
        crop = Policy(crop=photos.views().policy.crop, interpolation=interpolation)
        found[f"crop and resize, {interpolation}"] = _gap(_drawn(images, crop))
    found["the whole policy"] = _gap(_drawn(images, photos.views().policy))
    return found


def _arguments(name: str) -> list[float | None]:
    levels = (3.0, 8.5, 9.3)
    return [
        magnitudes.operation_argument(name, level, negate=negate, increasing=True)
        for level in levels
        for negate in (False, True)
    ]


def _drawn(images: list[Image.Image], policy: Policy) -> list[tuple[Image.Image, draw.ViewParams]]:
    return [(image, draw.view_params(policy, f"{n}", seed)) for n, image in enumerate(images) for seed in range(8)]


def _gap(cases: list[tuple[Image.Image, draw.ViewParams]]) -> tuple[float, int]:
    gaps = []
    for image, params in cases:
        ours = render.to_pixels(np.asarray(image), params, SIZE).astype(np.int16)
        gaps.append(np.abs(ours - pillow_views.to_pixels(image, params, SIZE)))
    return float(np.mean([gap.mean() for gap in gaps])), int(max(gap.max() for gap in gaps))


def distances(files: list[bytes]) -> dict[str, tuple[float, float]]:
    """Mean distance from the exact crop in levels, of ours and of Pillow's."""
    digits = [
        np.repeat(digit.astype(np.uint8)[..., None] * 16, 3, axis=2).clip(0, 255) for digit in load_digits().images
    ]
    photographs = [decode.rgb_pixels(data, "bench") for data in files]
    found = {}
    for name, images, size in (("digits at 32", digits[:200], 32), ("photographs at 224", photographs, SIZE)):
        gaps = []
        for number, image in enumerate(images):
            params = draw.view_params(Policy(crop=photos.views().policy.crop), f"{number}", 0)
            box = render.source_box(image.shape[1], image.shape[0], params)
            exact = exact_crop(image, box, size)
            views = render.to_pixels(image, params, size), pillow_views.to_pixels(Image.fromarray(image), params, size)
            gaps.append([np.abs(view - exact).mean() for view in views])
        found[name] = tuple(np.mean(gaps, axis=0).round(3).tolist())
    return found


def exact_crop(image_HWC: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Bicubic (a = -1/2), antialiased, not rounded: float64 (3, size, size)."""
    left, top, right, bottom = box
    height, width = image_HWC.shape[:2]
    down, across = _exact_weights(top, bottom, height, size), _exact_weights(left, right, width, size)
    return np.einsum("ih,hwc,jw->cij", down, image_HWC.astype(float), across, optimize=True).clip(0, 255)


def _exact_weights(start: int, stop: int, extent: int, size: int) -> np.ndarray:
    scale = max((stop - start) / size, 1)
    middles = start + (np.arange(size) + 0.5) * (stop - start) / size
    x = np.abs(np.arange(extent) + 0.5 - middles[:, None]) / scale
    weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0))
    return weights / weights.sum(axis=1, keepdims=True)


Work = Callable[[list[bytes], int], None]
"""Makes a view, or more, of each of some files; the number of the round makes each time other ones."""


def ours(repeats: int) -> Work:
    policy = photos.views().policy

    def work(files: list[bytes], number: int) -> None:
        batch = np.empty((repeats, 3, SIZE, SIZE), np.uint8)
        for place, data in enumerate(files):
            image = decode.rgb_pixels(data, "bench")
            for repeat, view_CHW in enumerate(batch):
                params = draw.view_params(policy, f"{place}", number * repeats + repeat)
                render.to_pixels(image, params, SIZE, view_CHW)

    return work


def timms(files: list[bytes], _: int) -> None:
    transform = timm.data.create_transform(
        SIZE,
        is_training=True,
        color_jitter=0.3,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        use_prefetcher=False,
    )
    for data in files:
        _until_it_works(lambda data=data: transform(Image.open(io.BytesIO(data)).convert("RGB")))


def _until_it_works(work: Callable[[], object]) -> None:
    while True:
        try:
            work()
        except ValueError:
            continue  # timm 1.0's posterize of no bits, with Pillow 13; two or three in a thousand
        return


def torchvisions(files: list[bytes], _: int) -> None:
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            # Bilinear: on tensors it has no bicubic moves.
            v2.RandomApply([v2.RandAugment(1, 9, interpolation=v2.InterpolationMode.BILINEAR, fill=list(FILL))]),
            v2.RandomApply([v2.RandAugment(1, 9, interpolation=v2.InterpolationMode.BILINEAR, fill=list(FILL))]),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomErasing(p=0.25, value="random"),
        ]
    )
    for data in files:
        transform(decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)))


def opencvs() -> Work | None:
    """Crop, flip and resize alone, which OpenCV has; None where it is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    policy = Policy(crop=photos.views().policy.crop, flip=0.5)

    def work(files: list[bytes], number: int) -> None:
        for place, data in enumerate(files):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            params = draw.view_params(policy, f"{place}", number)
            left, top, right, bottom = render.source_box(image.shape[1], image.shape[0], params)
            view = cv2.resize(image[top:bottom, left:right], (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
            cv2.flip(view, 1) if params.flip else view

    return work


def albumentations() -> Work | None:
    """Its nearest to the policy; None where it is not installed."""
    try:
        import albumentations as library
        import cv2
    except ImportError:
        return None
    transform = library.Compose(
        [
            library.RandomResizedCrop((SIZE, SIZE), interpolation=cv2.INTER_CUBIC),
            library.HorizontalFlip(),
            library.OneOf([library.Affine(shear=17), library.Rotate(30), library.Sharpen(), library.ColorJitter()]),
            library.CoarseDropout(p=0.25),
        ]
    )

    def work(files: list[bytes], _: int) -> None:
        for data in files:
            transform(image=cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))

    return work


def rendering(to_pixels: Callable[..., np.ndarray], images: list[np.ndarray] | list[Image.Image]) -> Work:
    policy = photos.views().policy

    def work(files: list[bytes], number: int) -> None:
        for place, image in enumerate(images):
            to_pixels(image, draw.view_params(policy, f"{place}", number), SIZE)

    return work


def times_ms(files: list[bytes], rounds: int) -> dict[str, list[float]]:
    """Processor time of a view in each round, by who makes it."""
    images = [decode.rgb(data, "bench") for data in files]
    works: dict[str, Work | None] = {
        "timm's transform": timms,
        "ours, one view of an image": ours(1),
        "ours, three views of an image": ours(REPEATS),
        "decoding alone": lambda files, _: [decode.rgb_pixels(data, "bench") for data in files] and None,
        "rendering alone": rendering(render.to_pixels, [np.asarray(image) for image in images]),
        "rendering alone, Pillow": rendering(pillow_views.to_pixels, images),
        "torchvision v2 on tensors": torchvisions,
        "OpenCV, crop and resize alone": opencvs(),
        "albumentations": albumentations(),
    }
    found: dict[str, list[float]] = {name: [] for name, work in works.items() if work}
    for number in range(rounds + 1):
        for name, values in found.items():
            began = time.process_time()
            works[name](files, number)
            views = len(files) * (REPEATS if "three" in name else 1)
            if number:
                values.append(1e3 * (time.process_time() - began) / views)
    return found


def ratio(over: list[float], under: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(over, under, strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = photos.jpegs(IMAGES, QUALITY)
    gaps = differences(files[:12])
    for name, (mean, most) in gaps.items():
        print(f"{name:28} differs from Pillow's by {mean:.3f} levels in the mean, at most {most}")
    for name, (ours_gap, pillow_gap) in distances(files[:12]).items():
        print(f"{name}: ours is {ours_gap} levels from the exact crop, Pillow's {pillow_gap}")
    times = times_ms(files, args.rounds)
    for name, values in times.items():
        print(f"{name:32} {statistics.median(values):.3f} ms a view")
    ratios = {
        "one view / timm": ratio(times["ours, one view of an image"], times["timm's transform"]),
        "three views / timm": ratio(times["ours, three views of an image"], times["timm's transform"]),
        "rendering / Pillow": ratio(times["rendering alone"], times["rendering alone, Pillow"]),
    }
    print(ratios)
    kilobytes = round(statistics.mean(map(len, files)) / 1e3)
    print(json.dumps({"kB": kilobytes, "ratios": ratios, "gaps": gaps, "ms": times}))


if __name__ == "__main__":
    main()
