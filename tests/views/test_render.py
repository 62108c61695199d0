"""What is rendered, against timm and torchvision where they mean the same."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import datasets
from timm.data import auto_augment
from torchvision.transforms import InterpolationMode, functional

from teachonce.views import draw, magnitudes, render
from teachonce.views.view_policy import Affine, ColorJitter, Policy, RandAugment, RandomErasing, RandomResizedCrop

PLAIN = draw.view_params(Policy(), "k", 0)
FULL = Policy(
    crop=RandomResizedCrop(),
    flip=0.5,
    affine=Affine(degrees=10, translate=0.1, shear=5),
    color_jitter=ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
    rand_augment=RandAugment(operations=3, probability=1.0),
    erase=RandomErasing(probability=1.0),
)


@pytest.fixture(scope="module")
def photo():
    return datasets.load_sample_image("china.jpg")


@pytest.fixture(scope="module")
def smooth():
    y_HW, x_HW = np.mgrid[:300, :400]
    bands = (127 + 120 * np.sin(x_HW / 60), 127 + 120 * np.cos(y_HW / 50), 127 + 120 * np.sin((x_HW + y_HW) / 70))
    return np.stack(bands, axis=-1).astype(np.uint8)


def _colour(shape, colour):
    return np.full((*shape, 3), colour, np.uint8)


def _array(view_CHW):
    """A view as an image."""
    return np.ascontiguousarray(view_CHW.transpose(1, 2, 0))


def _pillow(view_CHW):
    return Image.fromarray(_array(view_CHW))


def _gap(image, other):
    return np.abs(np.asarray(image, dtype=int) - np.asarray(other, dtype=int))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (8, 8), (17, 31), (301, 200)])
@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_any_image_at_any_size(shape, size):
    grey = np.repeat(np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(*shape, 1), 3, axis=2)
    for seed in range(6):
        view_CHW = render.to_pixels(grey, draw.view_params(FULL, "k", seed), size)
        assert view_CHW.shape == (3, size, size)
        assert view_CHW.dtype == np.uint8
        assert view_CHW.flags.c_contiguous
        assert view_CHW.flags.writeable


def test_each_operation_renders_one_pixel_and_constant_images():
    for shape in ((1, 1), (5, 3)):
        image = _colour(shape, (0, 128, 255))
        for name in magnitudes.OPERATIONS:
            for level in (0.0, 9.0, 10.0):
                argument = magnitudes.operation_argument(name, level, negate=False, increasing=True)
                params = dataclasses.replace(PLAIN, operations=(draw.Operation(name, argument),))
                assert render.to_pixels(image, params, 6).shape == (3, 6, 6)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match=r"must be RGB, uint8 \(H, W, 3\). Got uint"):
        render.to_pixels(image, PLAIN, 4)


def test_a_batch_is_written_in_place(photo):
    batch = np.zeros((3, 3, 17, 17), np.uint8)
    for seed, view_CHW in enumerate(batch):
        params = draw.view_params(FULL, "k", seed)
        assert render.to_pixels(photo, params, 17, view_CHW) is view_CHW
        assert np.array_equal(view_CHW, render.to_pixels(photo, params, 17))
    for other in (batch, batch[0, :, :, :16], batch[:, 0], batch[0].transpose(0, 2, 1)):
        with pytest.raises(ValueError, match="out must be"):
            render.to_pixels(photo, PLAIN, 17, other)


def test_an_image_of_any_layout_in_memory_renders_alike(photo):
    params = draw.view_params(FULL, "k", 1)
    layouts = (photo, np.asfortranarray(photo), np.ascontiguousarray(photo[:, ::-1])[:, ::-1])
    first, *others = [render.to_pixels(image, params, 24) for image in layouts]
    assert all(np.array_equal(other, first) for other in others)


def test_size_zero_is_refused(photo):
    with pytest.raises(ValueError, match="must be > 0"):
        render.to_pixels(photo, PLAIN, 0)


def test_whole_image_at_its_own_size_is_the_image():
    digit_HW = (datasets.load_digits().images[5] * 15).astype(np.uint8)
    view_CHW = render.to_pixels(np.repeat(digit_HW[:, :, None], 3, axis=2), PLAIN, 8)
    assert (view_CHW == digit_HW).all()


def test_channels_are_red_green_blue():
    view_CHW = render.to_pixels(_colour((5, 5), (1, 2, 3)), PLAIN, 4)
    assert view_CHW.reshape(3, -1).tolist() == [[channel] * 16 for channel in (1, 2, 3)]


def test_flip_mirrors_left_and_right(photo):
    params = [draw.view_params(Policy(flip=chance), "k", 0) for chance in (0.0, 1.0)]
    straight, mirrored = (render.to_pixels(photo, p, 40) for p in params)
    assert (straight[:, :, ::-1] == mirrored).all()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crop_is_pillows_resize_of_the_box(photo, interpolation):
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    policy = Policy(crop=RandomResizedCrop(), interpolation=interpolation)
    image = Image.fromarray(photo)
    for seed in range(4):
        params = draw.view_params(policy, "k", seed)
        box = render.source_box(*image.size, params)
        view_CHW = render.to_pixels(photo, params, 64)
        gap = _gap(view_CHW, np.asarray(image.resize((64, 64), resample, box=box)).transpose(2, 0, 1))
        # Columns come before rows here: levels are rounded and clipped between them.
        assert gap.max() <= 4
        assert gap.mean() < 0.3
        # Cutting first, as torchvision does, may differ only where the filter reaches past the border.
        cut = render.to_pixels(
            photo[box[1] : box[3], box[0] : box[2]], draw.view_params(Policy(interpolation=interpolation), "k", 0), 64
        )
        assert (view_CHW[:, 3:-3, 3:-3] == cut[:, 3:-3, 3:-3]).all()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (41, 2), (500, 375)])
def test_a_constant_image_stays_as_it_is(shape, interpolation):
    params = draw.view_params(Policy(interpolation=interpolation), "k", 0)
    for level in (0, 1, 127, 254, 255):
        for size in (1, 7, 32):
            assert (render.to_pixels(_colour(shape, level), params, size) == level).all()


def test_center_keeps_the_middle_of_the_shorter_side():
    params = draw.view_params(Policy(center=0.875), "any", 3)
    assert render.source_box(500, 400, params) == (75, 25, 425, 375)
    assert render.source_box(3, 3, params) == (0, 0, 3, 3)
    assert render.source_box(1, 50, params) == (0, 24, 1, 25)
    assert params == draw.view_params(Policy(center=0.875), "other", 9)


def test_center_is_near_the_usual_evaluation(smooth):
    # The usual way rounds to whole pixels after the resize, this one before it: half a pixel at most.
    usual = functional.center_crop(functional.resize(Image.fromarray(smooth), 256, InterpolationMode.BICUBIC), 224)
    ours = render.to_pixels(smooth, draw.view_params(Policy(center=0.875), "k", 0), 224)
    gap = _gap(ours, np.asarray(usual).transpose(2, 0, 1))
    whole = _gap(render.to_pixels(smooth, PLAIN, 224), np.asarray(usual).transpose(2, 0, 1))
    assert gap.mean() < 1
    assert whole.mean() > 5


def test_one_draw_has_one_geometry_at_two_sizes(smooth):
    policy = Policy(
        crop=RandomResizedCrop(scale=(0.2, 1.0)),
        flip=0.5,
        affine=Affine(degrees=15, translate=0.1, scale=(0.8, 1.2), shear=8, fill=(128, 128, 128)),
    )
    for seed in range(12):
        params = draw.view_params(policy, "k", seed)
        big, small = render.to_pixels(smooth, params, 224), render.to_pixels(smooth, params, 56)
        shrunk = np.asarray(_pillow(big).resize((56, 56), Image.Resampling.BOX)).transpose(2, 0, 1)
        other = render.to_pixels(smooth, draw.view_params(policy, "k", seed + 100), 56)
        assert np.median(_gap(shrunk, small)) <= 1
        assert _gap(shrunk, small).mean() < 2 < _gap(other, small).mean()


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"])
def test_rand_augment_has_one_geometry_at_two_sizes(smooth, name):
    argument = magnitudes.operation_argument(name, 5.0, negate=True, increasing=True)
    params = dataclasses.replace(PLAIN, operations=(draw.Operation(name, argument),), fill=(128, 128, 128))
    big, small = render.to_pixels(smooth, params, 224), render.to_pixels(smooth, params, 56)
    shrunk = np.asarray(_pillow(big).resize((56, 56), Image.Resampling.BOX)).transpose(2, 0, 1)
    assert np.median(_gap(shrunk, small)) <= 2
    assert _gap(shrunk, small).mean() < 4 < _gap(render.to_pixels(smooth, PLAIN, 56), small).mean()


@pytest.mark.parametrize("negate", [True, False])
@pytest.mark.parametrize("name", magnitudes.OPERATIONS)
def test_operations_render_as_timms(photo, name, negate, monkeypatch):
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: -value if negate else value)
    level = 6.0
    their_name = f"{name}Increasing" if f"{name}Increasing" in auto_augment.NAME_TO_OP else name
    hparams = {"img_mean": (124, 116, 104), "interpolation": Image.Resampling.BICUBIC}
    reference = auto_augment.AugmentOp(their_name, prob=1.0, magnitude=level, hparams=hparams)
    operation = draw.Operation(name, magnitudes.operation_argument(name, level, negate=negate, increasing=True))
    params = dataclasses.replace(PLAIN, operations=(operation,), fill=(124, 116, 104))
    base_CHW = render.to_pixels(photo, PLAIN, 96)
    gap = _gap(
        render.to_pixels(_array(base_CHW), params, 96), np.asarray(reference(_pillow(base_CHW))).transpose(2, 0, 1)
    )
    # Pillow drops what is behind the point where it moves pixels, half a level in the mean; elsewhere the grid of the
    # argument moves a blend by a rounding.
    assert gap.max() <= 1
    assert gap.mean() < (0.5 if name.startswith(("Rotate", "Shear", "Translate")) else 0.05)


def test_jitter_renders_as_torchvisions(photo):
    functions = {
        "Brightness": functional.adjust_brightness,
        "Contrast": functional.adjust_contrast,
        "Color": functional.adjust_saturation,
    }
    base_CHW = render.to_pixels(photo, PLAIN, 64)
    for seed in range(5):
        params = draw.view_params(
            Policy(color_jitter=ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5)), "k", seed
        )
        wanted = _pillow(base_CHW)
        for operation in params.operations:
            wanted = functions[operation.name](wanted, operation.argument)
        assert (render.to_pixels(_array(base_CHW), params, 64) == np.asarray(wanted).transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("degrees", "shift", "scale", "shear"),
    [
        (12.0, (0.0, 0.0), 1.0, 0.0),
        (0.0, (0.125, -0.25), 1.0, 0.0),
        (0.0, (0.0, 0.0), 1.25, 0.0),
        (9.0, (0.0, 0.125), 0.8, 15.0),
    ],
)
def test_affine_is_torchvisions(smooth, degrees, shift, scale, shear):
    base_CHW = render.to_pixels(smooth, PLAIN, 64)
    pixels = [round(part * 64) for part in shift]
    wanted = functional.affine(
        _pillow(base_CHW), degrees, pixels, scale, [shear, 0.0], InterpolationMode.BILINEAR, fill=[9, 9, 9]
    )
    matrix = draw.affine_inverse(degrees, scale, shear)
    ours = render.to_pixels(
        _array(base_CHW), dataclasses.replace(PLAIN, affine=draw.AffineMap(matrix, shift, (9, 9, 9))), 64
    )
    assert np.quantile(_gap(ours, np.asarray(wanted).transpose(2, 0, 1)), 0.99) <= 1


def test_affine_of_a_constant_image_is_exact():
    image = _colour((33, 33), (1, 128, 255))
    policy = Policy(affine=Affine(degrees=45, scale=(1.5, 2.0), fill=(1, 128, 255)))
    for seed in range(10):
        view_CHW = render.to_pixels(image, draw.view_params(policy, "k", seed), 33)
        assert (view_CHW.reshape(3, -1) == [[1], [128], [255]]).all()


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from([16, 33, 224]))
@example(11804, 224)
def test_erasing_fills_its_box_with_noise_and_nothing_else(seed, size):
    params = draw.view_params(Policy(erase=RandomErasing(probability=1.0)), "k", seed)
    if params.erase is None:
        return
    image = _colour((4, 4), 7)
    changed_HW = (render.to_pixels(image, params, size) != 7).any(axis=0)
    left, top, right, bottom = render.erased_box(params.erase, size)
    assert not np.delete(np.delete(changed_HW, slice(top, bottom), 0), slice(left, right), 1).any()
    inside_HW = changed_HW[top:bottom, left:right]
    assert changed_HW.sum() == inside_HW.sum()
    # A pixel of noise is grey 7 by chance once in 2^24: in the example, one of 11,904.
    assert (~inside_HW).sum() <= 1
    for edge, wanted in zip((left, right), (params.erase.left, params.erase.left + params.erase.width), strict=True):
        assert abs(edge / size - wanted) <= 0.5 / size + 1e-12


def test_noise_is_uniform_and_its_own_for_each_view():
    policy = Policy(erase=RandomErasing(probability=1.0, scale=(0.3, 0.3), ratio=(1.0, 1.0)))
    image = _colour((4, 4), 0)
    patches = []
    for seed in range(2):
        params = draw.view_params(policy, "k", seed)
        left, top, right, bottom = render.erased_box(params.erase, 224)
        patches.append(render.to_pixels(image, params, 224)[:, top:bottom, left:right])
        counts = np.bincount(patches[-1].ravel(), minlength=256)
        assert counts.min() > 0.6 * counts.mean()
        assert counts.max() < 1.4 * counts.mean()
    assert (patches[0][:, :100, :100] == patches[1][:, :100, :100]).mean() < 0.02
