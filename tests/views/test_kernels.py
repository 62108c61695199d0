"""The compiled kernels and their NumPy form give the same bytes, whatever the sizes, boxes, angles and contents."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from teachonce.views import draw, kernel_choice, kernels_numpy, magnitudes, operations, render, resize_kernels
from teachonce.views.view_policy import Affine, ColorJitter, Policy, RandAugment, RandomErasing, RandomResizedCrop

MANY = hypothesis.settings(max_examples=150, deadline=None)
SIZES = st.one_of(st.integers(1, 20), st.sampled_from([32, 111, 112, 113, 224]))
SIDES = st.one_of(st.integers(1, 12), st.integers(1, 400))
CONTENTS = st.sampled_from(["noise", "bright", "extremes", "ramp", "constant"])
GEOMETRY = st.integers(-(1 << 23), 1 << 23)


@pytest.fixture(scope="module")
def compiled():
    return kernel_choice.compiled_kernels()


def picture(shape, content, seed=0):
    """uint8 of a shape: noise, its extremes, or something smooth."""
    count = int(np.prod(shape))
    noise = np.random.Philox(key=seed).random_raw(count // 8 + 1).view(np.uint8)[:count].reshape(shape)
    return {
        "noise": noise,
        "bright": noise | 0xE0,
        "extremes": np.where(noise < 128, 0, 255).astype(np.uint8),
        "ramp": (np.arange(count) % 256).astype(np.uint8).reshape(shape),
        "constant": np.full(shape, seed % 256, np.uint8),
    }[content]


def view_of(size, content, seed=0):
    return picture((3, size, size), content, seed)


def both(compiled, name, *arguments):
    """What each makes: the value, and the arrays that it was given."""
    outcomes = []
    for function in (getattr(compiled, name), getattr(kernels_numpy, name)):
        copies = [value.copy() if isinstance(value, np.ndarray) else value for value in arguments]
        outcomes.append([function(*copies), *(value for value in copies if isinstance(value, np.ndarray))])
    return outcomes


def assert_equal(compiled, name, *arguments):
    first, second = both(compiled, name, *arguments)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)


@MANY
@hypothesis.given(data=st.data(), size=SIZES, options=st.tuples(st.booleans(), st.booleans()), content=CONTENTS)
def test_resize(compiled, data, size, options, content):
    height, width = data.draw(SIDES), data.draw(SIDES)
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = (left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    image = picture((height, width, 3), content)
    out = np.zeros((3, size, size), np.uint8)
    assert_equal(compiled, "resize", image, box, options, out)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30_000), (1, 400_000), (30_000, 1), (2, 9_000), (3_000, 4_000)])
@pytest.mark.parametrize("cubic", [True, False])
def test_resize_of_long_and_large_images(compiled, shape, cubic):
    image = picture((*shape, 3), "noise")
    for size in (1, 33):
        out = np.zeros((3, size, size), np.uint8)
        assert_equal(compiled, "resize", image, (0, 0, shape[1], shape[0]), (cubic, False), out)


@pytest.mark.parametrize("cubic", [True, False])
def test_weights_of_a_window(cubic):
    """Their sum is exact, and that of their magnitudes within what the proofs beside the sums in int32 take."""
    for length, size in (
        (1, 1),
        (1, 9),
        (3, 224),
        (5, 4),
        (500, 224),
        (375, 224),
        (4000, 7),
        (90_000, 1),
        (30_000, 33),
    ):
        for start in (0, 1, 2, length // 3):
            extent = start + length + (length % 3)
            first_S, weights_SK = resize_kernels.window_weights((start, start + length), extent, min(size, 40), cubic)
            assert (weights_SK.sum(axis=1, dtype=np.int64) == 1 << 14).all()
            assert (np.abs(weights_SK.astype(np.int64)).sum(axis=1) < 1 << 15).all()
            assert first_S.min() >= 0
            assert (first_S + (weights_SK != 0).cumsum(axis=1).max(axis=1) <= extent).all()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_weights_of_phases(interpolation):
    phases = operations.phase_weights(interpolation).astype(int)
    assert (phases.sum(axis=1) == 1 << 14).all()
    assert (np.abs(phases).sum(axis=1) <= 3 << 13).all()
    assert phases[0].tolist() == [0, 1 << 14, 0, 0]
    # As near the other side as that one: only the ties of a rounding are apart.
    assert np.abs(phases[1:] - phases[:0:-1, ::-1]).max() <= 1


@MANY
@hypothesis.given(SIZES, st.tuples(*[GEOMETRY] * 6), st.sampled_from(["bicubic", "bilinear"]), CONTENTS)
@hypothesis.example(224, (1 << 20, 0, 0, 0, 1 << 20, 0), "bicubic", "noise")
@hypothesis.example(5, (1 << 40, -(1 << 40), 1 << 55, 1 << 40, 1 << 40, 0), "bilinear", "extremes")
def test_warp(compiled, size, matrix, interpolation, content):
    view, phases = view_of(size, content), operations.phase_weights(interpolation)
    assert_equal(compiled, "warp", view, matrix, phases, (1, 2, 3), np.zeros_like(view))


@MANY
@hypothesis.given(SIZES, st.tuples(GEOMETRY, st.integers(-(1 << 30), 1 << 30)), st.booleans(), CONTENTS)
def test_slides_are_warps_along_one_axis(compiled, size, motion, cubic, content):
    view, phases = view_of(size, content), operations.phase_weights("bicubic" if cubic else "bilinear")
    for name in ("slide_rows", "slide_columns"):
        assert_equal(compiled, name, view, motion, phases, (9, 200, 3), np.zeros_like(view))


@MANY
@hypothesis.given(SIZES, CONTENTS, st.integers(0, 11 << 12), st.integers(0, 3))
def test_operations_in_place(compiled, size, content, factor, seed):
    view, other = view_of(size, content, seed), view_of(size, "noise", seed + 9)
    assert_equal(compiled, "count_levels", view)
    assert_equal(compiled, "sum_grey", view)
    assert_equal(compiled, "saturate", view, factor)
    assert_equal(compiled, "sharpen", view, factor, np.zeros_like(view))
    assert_equal(compiled, "apply_tables", view, picture((3, 256), "noise", seed))
    assert_equal(compiled, "mix", view, other, factor % 4097)


@MANY
@hypothesis.given(shape=st.tuples(SIDES, SIDES), size=SIZES, content=CONTENTS, seed=st.integers(0, 10**6))
def test_whole_views(compiled, shape, size, content, seed):
    policy = Policy(
        crop=RandomResizedCrop(),
        interpolation="bilinear" if seed % 5 == 0 else "bicubic",
        flip=0.5,
        affine=Affine(degrees=180, translate=0.5, scale=(0.01, 3), shear=60) if seed % 2 else None,
        color_jitter=ColorJitter(brightness=1, contrast=10, saturation=10),
        rand_augment=RandAugment(operations=6, probability=0.8, magnitude=7, std=4, increasing=seed % 3 > 0),
        erase=RandomErasing(),
    )
    image, params = picture((*shape, 3), content), draw.view_params(policy, "k", seed)
    views = [render_with(chosen, image, params, size) for chosen in (compiled, kernel_choice.numpy_kernels())]
    assert np.array_equal(*views)


def render_with(chosen, image, params, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_choice, "_CHOSEN", [chosen])
        return render.to_pixels(image, params, size)


def test_tables_that_follow_each_other_give_what_each_gives_alone():
    """One lookup for a run of tables, among them those that depend on the levels before them."""
    view = view_of(24, "noise")
    names = ("Solarize", "Equalize", "Brightness", "AutoContrast", "Contrast", "Posterize", "Invert", "Equalize")
    steps = [
        draw.Operation(name, magnitudes.operation_argument(name, 5.0, negate=True, increasing=True)) for name in names
    ]
    plain = draw.view_params(Policy(), "k", 0)
    at_once = render.to_pixels(
        np.ascontiguousarray(view.transpose(1, 2, 0)), dataclasses.replace(plain, operations=tuple(steps)), 24
    )
    for step in steps:
        params = dataclasses.replace(plain, operations=(step,))
        view = render.to_pixels(np.ascontiguousarray(view.transpose(1, 2, 0)), params, 24)
    assert np.array_equal(view, at_once)


def test_the_loops_are_the_integers_they_are_compiled_from():
    """Uncompiled, they give the same, but where a NumPy scalar is narrower than the compiler's."""
    image = picture((7, 9, 3), "noise")
    out = np.zeros((3, 5, 5), np.uint8)
    expected = np.zeros_like(out)
    kernels_numpy.resize(image, (1, 0, 8, 7), (True, True), expected)
    resize_kernels.resize(image, (1, 0, 8, 7), (True, True), out)
    assert np.array_equal(out, expected)
