"""Golden views: what a draw and its pixels were when the cache's format was fixed.

    python tests/golden/make_views.py           rewrite views.json beside this file (a change makes old caches unusable)
    python tests/golden/make_views.py --print   print the same JSON, for instance from another process or machine

Sources are made of integers or come from scikit-learn's digits, so that no image decoder takes part. Neither a draw nor
a pixel may ever change: another pixel is another renderer, with a version of its own.
"""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from sklearn import datasets

from teachonce.core import config, hashing
from teachonce.views import draw, render
from teachonce.views.view_policy import Policy

GOLDEN = Path(__file__).with_name("views.json")

_RAND = {"fill": [124, 116, 104]}
POLICIES = {
    "whole": {},
    "none": {"center": 0.875},
    "crop": {"crop": {}, "flip": 0.5},
    "crop_bilinear": {"crop": {"scale": [0.35, 1.0]}, "interpolation": "bilinear", "rand_augment": {}},
    "jitter": {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 1.5}},
    "affine": {"affine": {"degrees": 10, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5, "fill": [0, 0, 0]}},
    "rand_augment": {"rand_augment": {"operations": 4, "probability": 1.0} | _RAND},
    "rand_augment_older": {"rand_augment": {"increasing": False, "std": 3.0, "operations": 3, "probability": 0.9}},
    "deit": {
        "crop": {},
        "flip": 0.5,
        "affine": {"degrees": 5, "shear": 3},
        "color_jitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
        "rand_augment": _RAND,
        "erase": {"probability": 0.5},
    },
}
SIZES = (32, 33, 96)
SOURCES = ("digit", "wide", "tall")


def source(name: str) -> np.ndarray:
    """One of SOURCES: a real 8×8 digit, or waves with fine texture, wide with odd sides or tall and narrow;
    uint8 (H, W, 3)."""
    if name == "digit":
        grey_HW = (datasets.load_digits().images[3] * 15).astype(np.uint8)
        return np.repeat(grey_HW[:, :, None], 3, axis=2)
    height, width = {"wide": (121, 203), "tall": (160, 20)}[name]
    y_HW, x_HW = np.mgrid[:height, :width]
    bands = (x_HW * 3 + y_HW, np.abs((x_HW - 60) * (y_HW - 40)) // 16, 40 * (x_HW // 9 % 2) + y_HW * 2)
    return (np.stack(bands, axis=-1) % 256).astype(np.uint8)


def drawn(params: draw.ViewParams) -> dict[str, object]:
    """A draw as plain data, with all the crop's boxes."""
    crop = params.crop and {"tries": tuple(params.crop.tries()), "ratio": params.crop.ratio}
    return dataclasses.asdict(params) | {"crop": crop}


def make() -> dict[str, dict[str, str]]:
    """`policy/key/seed` → digest of the draw, and `policy/key/seed/source/size` → digest of the pixels."""
    images = {name: source(name) for name in SOURCES}
    draws, pixels = {}, {}
    for name, data in POLICIES.items():
        policy = config.parse(data, Policy, name)
        for number, aug_seed in enumerate((0, 1, 7, 2**40)):
            key = ("n01440764_10026", "digit-00003", "ключ 日本")[number % 3]
            params = draw.view_params(policy, key, aug_seed)
            case = f"{name}/{key}/{aug_seed}"
            draws[case] = hashing.json_digest(drawn(params))
            for place, (size, kind) in enumerate((s, k) for s in SIZES for k in SOURCES):
                if place % 4 == number:
                    view_CHW = render.to_pixels(images[kind], params, size)
                    pixels[f"{case}/{kind}/{size}"] = hashlib.sha256(view_CHW.tobytes()).hexdigest()[:32]
    return {"draws": draws, "pixels": pixels}


def main() -> None:
    text = json.dumps(make(), indent=1, ensure_ascii=False) + "\n"
    if "--print" in sys.argv[1:]:
        sys.stdout.buffer.write(text.encode())
    else:
        GOLDEN.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
