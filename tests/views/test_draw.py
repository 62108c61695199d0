"""What is drawn: independence of decisions, and the documented distributions."""

import collections
import dataclasses
import math
import random  # noqa: TID251

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from timm.data import auto_augment
from torchvision.transforms import RandomResizedCrop as TorchCrop

from teachonce.core import config
from teachonce.views import draw, magnitudes, render
from teachonce.views.view_policy import Affine, ColorJitter, Policy, RandAugment, RandomErasing, RandomResizedCrop

PARTS = {
    "crop": RandomResizedCrop(),
    "flip": 0.5,
    "affine": Affine(degrees=10, translate=0.1, scale=(0.9, 1.1), shear=5),
    "color_jitter": ColorJitter(brightness=0.4, contrast=0.3, saturation=0.2),
    "rand_augment": RandAugment(),
    "erase": RandomErasing(probability=0.5),
}
JITTER = frozenset({"brightness", "contrast", "saturation"})


def _decisions(parts: dict, key: str, seed: int) -> dict:
    """The drawn values by decision; operations are told apart by drawing each list alone."""
    params = draw.view_params(Policy(**parts), key, seed)
    jitter = len(draw.view_params(Policy(color_jitter=parts.get("color_jitter")), key, seed).operations)
    decisions = {name: getattr(params, name) for name in ("crop", "flip", "affine", "erase")}
    return decisions | {"color_jitter": params.operations[:jitter], "rand_augment": params.operations[jitter:]}


@settings(max_examples=60)
@given(st.sets(st.sampled_from(sorted(PARTS))), st.text(max_size=20), st.integers(0, 2**40))
def test_adding_a_transform_shifts_no_other(names, key, seed):
    if any(0xD800 <= ord(letter) < 0xE000 for letter in key):
        key = "surrogate"
    full = _decisions(PARTS, key, seed)
    some = _decisions({name: PARTS[name] for name in names}, key, seed)
    assert {name: some[name] for name in names} == {name: full[name] for name in names}


@given(st.sets(st.sampled_from(sorted(JITTER))), st.integers(0, 1000))
def test_leaving_out_a_jitter_keeps_the_factors_and_order_of_the_rest(names, seed):
    timm_name = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}
    full = draw.view_params(Policy(color_jitter=ColorJitter(**dict.fromkeys(JITTER, 0.4))), "k", seed).operations
    some = draw.view_params(Policy(color_jitter=ColorJitter(**dict.fromkeys(names, 0.4))), "k", seed).operations
    remaining = {timm_name[name] for name in names}
    assert some == tuple(operation for operation in full if operation.name in remaining)


def test_more_operations_keep_the_first():
    for seed in range(50):
        two = draw.view_params(Policy(rand_augment=RandAugment(operations=2, probability=1.0)), "k", seed).operations
        five = draw.view_params(Policy(rand_augment=RandAugment(operations=5, probability=1.0)), "k", seed).operations
        assert five[:2] == two


def test_params_are_frozen_values():
    params = draw.view_params(Policy(**PARTS), "k", 0)
    assert hash(params) == hash(draw.view_params(Policy(**PARTS), "k", 0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.flip = True


def _global_states() -> list:
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002


def test_drawing_leaves_the_global_generators_alone():
    before = _global_states()
    draw.view_params(Policy(**PARTS), "k", 0)
    assert _global_states() == before


def _near(count: int, total: int, chance: float) -> bool:
    return abs(count - total * chance) < 5 * math.sqrt(total * chance * (1 - chance)) + 1e-9


@pytest.mark.parametrize("chance", [0.0, 0.2, 0.5, 1.0])
def test_flip_has_its_probability(chance):
    flips = sum(draw.view_params(Policy(flip=chance), f"k{n}", n % 7).flip for n in range(2000))
    assert _near(flips, 2000, chance)


@pytest.mark.parametrize("shape", [(375, 500), (500, 100), (28, 28)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 0.6)])
def test_crops_are_distributed_as_torchvisions(shape, scale):
    height, width = shape
    policy = Policy(crop=RandomResizedCrop(scale=scale))
    boxes = [render.source_box(width, height, draw.view_params(policy, f"k{n}", 0)) for n in range(1500)]
    ours = np.array([(x, y, right - x, bottom - y) for x, y, right, bottom in boxes])
    torch.manual_seed(0)  # noqa: TID251
    image = torch.empty(3, height, width)
    drawn = [TorchCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(1500)]
    reference = np.array([(j, i, w, h) for i, j, h, w in drawn])
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], reference[:, column]).pvalue > 1e-4
    areas = [array[:, 2] * array[:, 3] for array in (ours, reference)]
    ratios = [array[:, 2] / array[:, 3] for array in (ours, reference)]
    assert stats.ks_2samp(*areas).pvalue > 1e-4
    assert stats.ks_2samp(*ratios).pvalue > 1e-4


def test_crop_that_never_fits_falls_back_as_torchvisions():
    never = Policy(crop=RandomResizedCrop(scale=(1.0, 1.0), ratio=(0.75, 4 / 3)))
    for width, height in ((1000, 20), (20, 1000), (7, 1), (1, 1), (120, 100)):
        x, y, right, bottom = render.source_box(width, height, draw.view_params(never, "k", 0))
        if (width, height) != (120, 100):
            top, left, h, w = TorchCrop.get_params(torch.empty(3, height, width), [1.0, 1.0], [0.75, 4 / 3])
            assert (y, x, bottom - y, right - x) == (top, left, h, w)
        assert 0 <= x < right <= width
        assert 0 <= y < bottom <= height


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 10**6), st.sampled_from([(0.05, 1.0), (0.001, 0.002)]))
def test_every_frame_lies_in_the_image(width, height, seed, scale):
    policies = (
        Policy(crop=RandomResizedCrop(scale=scale, ratio=(0.2, 5.0))),
        Policy(crop=RandomResizedCrop(ratio=(0.01, 0.02))),
        Policy(center=0.875),
        Policy(),
    )
    for policy in policies:
        x, y, right, bottom = render.source_box(width, height, draw.view_params(policy, "k", seed))
        assert 0 <= x < right <= width
        assert 0 <= y < bottom <= height


def _rand_names(augment: RandAugment, count: int) -> list[draw.Operation]:
    views = (draw.view_params(Policy(rand_augment=augment), f"k{n}", 3).operations for n in range(count))
    return [operation for operations in views for operation in operations]


def test_operations_are_timms_and_equally_likely():
    assert list(magnitudes.OPERATIONS) == auto_augment._RAND_TRANSFORMS
    increasing = [name.removesuffix("Increasing") for name in auto_augment._RAND_INCREASING_TRANSFORMS]
    assert list(magnitudes.OPERATIONS) == increasing
    drawn = _rand_names(RandAugment(), 6000)
    assert _near(len(drawn), 12000, 0.5)
    counts = collections.Counter(operation.name for operation in drawn)
    assert set(counts) == set(magnitudes.OPERATIONS)
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_magnitude_is_a_clamped_normal_with_either_sign():
    angles = np.array([op.argument for op in _rand_names(RandAugment(probability=1.0), 8000) if op.name == "Rotate"])
    level_N = np.abs(angles) / 3
    assert level_N.max() == 10.0
    assert _near(int((level_N == 10).sum()), len(level_N), float(stats.norm.sf(2)))
    assert _near(int((angles < 0).sum()), len(angles), 0.5)
    inner_N = level_N[level_N < 10]
    truncated = stats.truncnorm(-math.inf, 2, loc=9, scale=0.5)
    assert stats.kstest(inner_N, truncated.cdf).pvalue > 1e-4


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("negate", [True, False])
@pytest.mark.parametrize("name", magnitudes.OPERATIONS)
def test_arguments_are_timms(name, negate, increasing, monkeypatch):
    # timm draws the sign itself: hand it the sign wanted.
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: -value if negate else value)
    their_name = f"{name}Increasing" if increasing and f"{name}Increasing" in auto_augment.LEVEL_TO_ARG else name
    function = auto_augment.LEVEL_TO_ARG[their_name]
    for level in (0.0, 0.3, 4.0, 5.5, 8.999, 9.4, 10.0):
        ours = magnitudes.operation_argument(name, level, negate=negate, increasing=increasing)
        if function is None:
            assert ours is None
            continue
        (argument,) = function(level, auto_augment._HPARAMS_DEFAULT)
        wanted = max(1, argument) if name == "Posterize" else argument
        assert ours == pytest.approx(wanted, abs=2.0**-12)
        assert isinstance(ours, type(wanted))


def test_jitter_factors_and_orders_are_even():
    policy = Policy(color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=2.0))
    views = [draw.view_params(policy, f"k{n}", 0).operations for n in range(2400)]
    orders = collections.Counter(tuple(op.name for op in operations) for operations in views)
    assert len(orders) == 6
    assert stats.chisquare(list(orders.values())).pvalue > 1e-4
    for name, low, high in (("Brightness", 0.6, 1.4), ("Contrast", 0.6, 1.4), ("Color", 0.0, 3.0)):
        factors = [op.argument for operations in views for op in operations if op.name == name]
        assert stats.kstest(factors, stats.uniform(low, high - low).cdf).pvalue > 1e-4
        assert all((factor * 4096).is_integer() for factor in factors)


def test_affine_maps_are_of_the_stated_spread():
    policy = Policy(affine=Affine(degrees=20, translate=0.1, scale=(0.5, 2.0), shear=30))
    maps = [draw.view_params(policy, f"k{n}", 0).affine for n in range(2000)]
    inverse_N22 = np.array([m.matrix for m in maps]).reshape(-1, 2, 2)
    assert ((inverse_N22 * 2**16) % 1 == 0).all()
    forward_N22 = np.linalg.inv(inverse_N22)
    scale_N = np.sqrt(np.linalg.det(forward_N22))
    angle_N = np.degrees(np.arctan2(forward_N22[:, 1, 0], forward_N22[:, 0, 0]))
    shift_N2 = np.array([m.shift for m in maps])
    assert stats.kstest(scale_N, stats.uniform(0.5, 1.5).cdf).pvalue > 1e-4
    assert stats.kstest(angle_N, stats.uniform(-20, 40).cdf).pvalue > 1e-4
    for column_N in shift_N2.T:
        assert stats.kstest(column_N, stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-4


def test_erasing_boxes_are_of_the_stated_spread():
    policy = Policy(erase=RandomErasing(probability=0.25))
    boxes = [draw.view_params(policy, f"k{n}", 0).erase for n in range(6000)]
    drawn = [box for box in boxes if box is not None]
    assert _near(len(drawn), 6000, 0.25)
    areas = np.array([box.width * box.height for box in drawn])
    ratios = np.array([box.height / box.width for box in drawn])
    # With these ranges the tallest boxes seldom fit, so that areas are uniform but for a few in a hundred.
    assert stats.kstest(areas, stats.uniform(0.02, 0.31).cdf).statistic < 0.06
    assert stats.kstest(np.log(ratios), stats.uniform(math.log(0.3), math.log(11)).cdf).statistic < 0.06
    assert all(0 <= box.left <= box.left + box.width <= 1 + 1e-12 for box in drawn)
    assert all(0 <= box.top <= box.top + box.height <= 1 + 1e-12 for box in drawn)
    assert len({box.noise_key for box in drawn}) == len(drawn)


def test_erasing_gives_up_on_boxes_that_never_fit():
    never = config.parse({"erase": {"probability": 1, "scale": [0.9, 1], "ratio": [3, 3.3]}}, Policy, "x")
    assert draw.view_params(never, "k", 0).erase is None
