"""FORMAT.md's "Views", line by line in Python's own integers: what the text says is what is rendered."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from teachonce.views import draw, render
from teachonce.views.view_policy import Affine, Policy, RandAugment, RandomResizedCrop

PLAIN = draw.view_params(Policy(), "k", 0)


def picture(height, width):
    count = height * width * 3
    return np.random.Philox(key=count).random_raw(count // 8 + 1).view(np.uint8)[:count].reshape(height, width, 3)


def clip(value):
    return min(max(value, 0), 255)


def along_an_axis(lines, box, size, bits, *, cubic):
    """`lines[x]` is a list of levels; each of the view's pixels weighs those of its window."""
    s, n = box
    extent, g, d = len(lines), 2 if cubic else 1, max(n, size)
    out = []
    for i in range(size):
        m = (2 * i + 1) * n
        lo = max(0, s + (m - 2 * g * d + size) // (2 * size))
        hi = min(extent, s + (m + 2 * g * d + size) // (2 * size))
        f = []
        for x in range(lo, hi):
            t = (2**16 * abs((2 * (x - s) + 1) * size - m) + d) // (2 * d)
            if not cubic:
                f.append(2**4 * max(2**16 - t, 0))
            elif t < 2**16:
                f.append((3 * t**3 - 5 * 2**16 * t**2 + 2**49 + 2**28) >> 29)
            else:
                q = -(t**3) + 5 * 2**16 * t**2 - 2**35 * t + 2**50 if t < 2**17 else 0
                f.append((q + 2**28) >> 29)
        total = sum(f)
        c = [0] + [(2**15 * sum(f[: k + 1]) + total) // (2 * total) for k in range(len(f))]
        weights = [after - before for before, after in itertools.pairwise(c)]
        columns = zip(*lines[lo:hi], strict=True)
        sums = [sum(w * p for w, p in zip(weights, column, strict=True)) for column in columns]
        out.append([(value + 2 ** (bits - 1)) >> bits for value in sums])
    return out


def resized(image_HWC, box, size, *, cubic):
    left, top, right, bottom = box
    width = image_HWC.shape[1]
    rows = [[int(level) for level in row.ravel()] for row in image_HWC]
    rows = along_an_axis(rows, (top, bottom - top), size, 8, cubic=cubic)
    turned = [[rows[y][3 * x + c] for y in range(size) for c in range(3)] for x in range(width)]
    columns = along_an_axis(turned, (left, right - left), size, 20, cubic=cubic)
    return np.clip(columns, 0, 255).reshape(size, size, 3).transpose(2, 1, 0)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width", "size"), [(23, 31, 8), (5, 9, 16), (1, 1, 3), (90, 4, 5)])
def test_resize(height, width, size, interpolation):
    image = picture(height, width)
    for seed in range(4):
        params = draw.view_params(Policy(crop=RandomResizedCrop(), interpolation=interpolation, flip=0.5), "k", seed)
        expected = resized(image, render.source_box(width, height, params), size, cubic=interpolation == "bicubic")
        assert np.array_equal(render.to_pixels(image, params, size), expected[:, :, ::-1] if params.flip else expected)


def weights_of(phase, *, cubic):
    other = 1024 - phase
    if not cubic:
        return [0, 16 * other, 16 * phase, 0]
    exact = [
        -phase * other**2,
        phase**3 - 2**11 * phase**2 + 2**30,
        other**3 - 2**11 * other**2 + 2**30,
        -other * phase**2,
    ]
    sums = [0] + [(sum(exact[: k + 1]) + 2**15) >> 16 for k in range(4)]
    return [after - before for before, after in itertools.pairwise(sums)]


def moved(view_CHW, numbers, fill, *, cubic):
    a, b, c, d, e, f = numbers
    size = view_CHW.shape[1]
    out = np.empty_like(view_CHW)
    for y, x in np.ndindex(size, size):
        across, down = a * (2 * x + 1) + b * (2 * y + 1) + c, d * (2 * x + 1) + e * (2 * y + 1) + f
        if not (0 <= across < 2**21 * size and 0 <= down < 2**21 * size):
            out[:, y, x] = fill
            continue
        across, down = across - 2**20 + 2**10, down - 2**20 + 2**10
        i, j = across >> 21, down >> 21
        w = weights_of((across >> 11) % 2**10, cubic=cubic)
        v = weights_of((down >> 11) % 2**10, cubic=cubic)
        for channel in range(3):
            total = 2**19
            for k in range(4):
                row = view_CHW[channel, clip_to(j + k - 1, size)]
                total += v[k] * (sum(w[n] * int(row[clip_to(i + n - 1, size)]) for n in range(4)) >> 8)
            out[channel, y, x] = clip(total >> 20)
    return out


def clip_to(place, size):
    return min(max(place, 0), size - 1)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_moves(interpolation):
    size, one, fill = 13, 2**20, (9, 200, 3)
    view = render.to_pixels(picture(20, 30), PLAIN, size)
    cos, sin = (round(one * value) for value in (math.cos(math.radians(-21.5)), math.sin(math.radians(-21.5))))
    k = round(-0.21 * one)
    maps = {
        ("Rotate", -21.5): (cos, -sin, (one - cos + sin) * size, sin, cos, (one - sin - cos) * size),
        ("ShearX", k / one): (one, k, 0, 0, one, 0),
        ("ShearY", k / one): (one, 0, 0, k, one, 0),
        ("TranslateXRel", k / one): (one, 0, 2 * k * size, 0, one, 0),
        ("TranslateYRel", k / one): (one, 0, 0, 0, one, 2 * k * size),
    }
    for (name, argument), numbers in maps.items():
        step = draw.Operation(name, argument)
        params = dataclasses.replace(PLAIN, operations=(step,), fill=fill, interpolation=interpolation)
        expected = moved(view, numbers, fill, cubic=interpolation == "bicubic")
        assert np.array_equal(render.to_pixels(np.ascontiguousarray(view.transpose(1, 2, 0)), params, size), expected)


def test_affine():
    size, one = 12, 2**20
    image = picture(size, size)
    policy = Policy(affine=Affine(degrees=40, translate=0.2, scale=(0.7, 1.4), shear=10, fill=(1, 2, 3)))
    for seed in range(6):
        params = draw.view_params(policy, "k", seed)
        a, b, d, e = (int(value * one) for value in params.affine.matrix)
        r, down = (round(value * one) for value in params.affine.shift)
        p, q = size * (one + 2 * r), size * (one + 2 * down)
        c, f = (one * size - ((m * p + n * q + 2**19) >> 20) for m, n in ((a, b), (d, e)))
        expected = moved(image.transpose(2, 0, 1), (a, b, c, d, e, f), (1, 2, 3), cubic=False)
        assert np.array_equal(render.to_pixels(image, params, size), expected)


def channel_table(name, argument, counts):
    present = [level for level in range(256) if counts[level]]
    if name == "AutoContrast":
        lo, hi = present[0], present[-1]
        return [v if lo == hi else clip(255 * (v - lo) // (hi - lo)) for v in range(256)]
    if name == "Equalize":
        step = (sum(counts) - counts[present[-1]]) // 255
        return [v if step == 0 else min((step // 2 + sum(counts[:v])) // step, 255) for v in range(256)]
    return [_pointwise(name, argument, v) for v in range(256)]


def _pointwise(name, argument, v):
    if name == "Invert":
        return 255 - v
    if name == "Posterize":
        return v >> (8 - int(argument)) << (8 - int(argument))
    if name == "Solarize":
        return v if v < argument else 255 - v
    if name == "SolarizeAdd":
        return min(v + int(argument), 255) if v < 128 else v
    return clip(int(argument * 4096) * v >> 12)


def levels_after(view_CHW, name, argument):
    size = view_CHW.shape[1]
    view = view_CHW.astype(int)
    grey = (19595 * view[0] + 38470 * view[1] + 7471 * view[2] + 2**15) >> 16
    factor = int((argument or 0) * 4096)
    if name == "Color":
        return np.clip((4096 * grey + factor * (view - grey)) >> 12, 0, 255)
    if name == "Contrast":
        mean = (2 * int(grey.sum()) + size**2) // (2 * size**2)
        return np.clip((4096 * mean + factor * (view - mean)) >> 12, 0, 255)
    if name == "Sharpness":
        out = view.copy()
        for c, y, x in np.ndindex(3, size - 2, size - 2):
            around = view[c, y : y + 3, x : x + 3]
            smooth = (2 * (int(around.sum()) + 4 * int(around[1, 1])) + 13) // 26
            out[c, y + 1, x + 1] = clip((4096 * smooth + factor * (int(around[1, 1]) - smooth)) >> 12)
        return out
    counts = [np.bincount(channel.ravel(), minlength=256).tolist() for channel in view_CHW]
    return np.stack([np.array(channel_table(name, argument, counts[c]))[view_CHW[c]] for c in range(3)])


def test_levels():
    size = 24
    view = render.to_pixels(picture(40, 40) // 2 + 40, PLAIN, size)
    seen = set()
    for seed in range(200):
        params = draw.view_params(Policy(rand_augment=RandAugment(operations=1, probability=1.0, std=3)), "k", seed)
        (step,) = params.operations
        if step.name.startswith(("Rotate", "Shear", "Translate")):
            continue
        seen.add(step.name)
        ours = render.to_pixels(np.ascontiguousarray(view.transpose(1, 2, 0)), params, size)
        assert np.array_equal(ours, levels_after(view, step.name, step.argument)), step
    assert len(seen) == 10
