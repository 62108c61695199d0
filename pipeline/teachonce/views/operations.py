"""Operations on a view by name: tables, factors and maps of integers, for the kernels.

RandAugment's fifteen, of which colour jitter has three, and the affine map. Source: timm `data/auto_augment.py`, after
Cubuk et al. 2019 (arXiv 1909.13719), with Pillow's ImageOps, ImageEnhance and Image.transform, whose pixels they give
but for roundings; `magnitudes` makes their arguments.

Shapes: C channels, H and W of a view.
"""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from teachonce.views import draw, kernel_choice, magnitudes

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int64]
Phases = npt.NDArray[np.int16]

_ONE = 1 << draw.MAP_BITS
_FACTOR = 1 << magnitudes.FACTOR_BITS
_SOLARIZE_ADD_BELOW = 128
_LEVELS = np.arange(256)
_IN_OTHER_ARRAY = frozenset({"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel", "Sharpness"})
"""Operations whose pixels depend on neighbours, so that they cannot work in place."""


@functools.cache
def phase_weights(interpolation: str) -> Phases:
    """Weights of four neighbours for each of 1,024 places between the second and the third: int16 (1024, 4), of 2^-14.

    Differs: a bicubic map has a = -1, as Pillow's Image.transform, where the resize has a = -0.5.
    """
    i = np.arange(1024, dtype=np.int64)
    j = 1024 - i
    if interpolation == "bilinear":
        weights = 16 * np.stack([0 * i, j, i, 0 * i], axis=1)
    else:
        exact = np.stack([-i * j**2, i**3 - 2048 * i**2 + 2**30, j**3 - 2048 * j**2 + 2**30, -j * i**2], axis=1)
        # Of 2^-30; rounded as running sums, so that four weights add up to exactly 2^14.
        weights = np.diff((exact.cumsum(axis=1) + 2**15) >> 16, axis=1, prepend=0)
    phases: Phases = weights.astype(np.int16)
    return phases


def _brightness(argument: float) -> Levels:
    return (int(argument * _FACTOR) * _LEVELS) // _FACTOR


def _solarize(argument: float) -> Levels:
    return np.where(int(argument) > _LEVELS, _LEVELS, 255 - _LEVELS)


def _solarize_add(argument: float) -> Levels:
    return np.where(_LEVELS < _SOLARIZE_ADD_BELOW, _LEVELS + int(argument), _LEVELS)


def _posterize(argument: float) -> Levels:
    dropped = 8 - min(int(argument), 8)
    return _LEVELS >> dropped << dropped


_TABLES: dict[str, Callable[[float], Levels]] = {
    "Brightness": _brightness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Invert": lambda _: 255 - _LEVELS,
}


def _stretched(counts: Levels) -> Levels:
    """The table that takes the darkest level to 0 and the lightest to 255."""
    present = np.flatnonzero(counts)
    low, high = int(present[0]), int(present[-1])
    return _LEVELS if low == high else 255 * (_LEVELS - low) // (high - low)


def _equalized(counts: Levels) -> Levels:
    """The table under which levels are used as evenly as they can be, by Pillow's steps."""
    present = np.flatnonzero(counts)
    step = int(counts.sum() - counts[present[-1]]) // 255
    return _LEVELS if step == 0 else (step // 2 + counts.cumsum() - counts) // step


_TABLES_OF_COUNTS: dict[str, Callable[[Levels], Levels]] = {"AutoContrast": _stretched, "Equalize": _equalized}


class Canvas:
    """A view while operations change it: in place, or from one of two arrays into the other."""

    def __init__(self, out_CHW: Pixels, params: draw.ViewParams) -> None:
        """Begin with a view that is still to be written into `view_CHW`.

        Args:
            out_CHW: uint8 (3, size, size), C-contiguous, which holds the view after all operations.
            params: whose affine map and operations are to come, all of them.
        """
        moves = (params.affine is not None) + sum(operation.name in _IN_OTHER_ARRAY for operation in params.operations)
        self._other_CHW = np.empty_like(out_CHW) if moves else out_CHW
        self.view_CHW = out_CHW
        self._kernels = kernel_choice.chosen_kernels()
        self._fill, self._interpolation = params.fill, params.interpolation
        self._tables: Pixels | None = None
        if moves % 2:
            self._swap()

    def _swap(self) -> None:
        self.view_CHW, self._other_CHW = self._other_CHW, self.view_CHW

    def resize(self, image_HWC: Pixels, box: tuple[int, int, int, int], *, mirrored: bool) -> None:
        """A box of an image, from left, top to right, bottom, as the view; crop, resize and flip are one step."""
        options = (self._interpolation == "bicubic", mirrored)
        self._kernels.resize(np.ascontiguousarray(image_HWC), box, options, self.view_CHW)

    def map_affine(self, affine: draw.AffineMap) -> None:
        """The affine map of the policy, bilinear."""
        matrix = draw.pixel_map(affine, self.view_CHW.shape[1])
        self._kernels.warp(self.view_CHW, matrix, phase_weights("bilinear"), affine.fill, self._other_CHW)
        self._swap()

    def apply(self, operation: draw.Operation) -> None:
        """One operation.

        Raises:
            KeyError: there is no such operation.
        """
        name, argument = operation.name, operation.argument or 0.0
        # Tables that follow each other become one, so that pixels are looked up once.
        if name in _TABLES:
            self._look_up(np.stack([_TABLES[name](argument)] * 3))
        elif name in _TABLES_OF_COUNTS:
            self._look_up(np.stack([_TABLES_OF_COUNTS[name](counts) for counts in self._counts()]))
        else:
            self.finish()
            _OTHERS[name](self, argument)

    def _look_up(self, tables: Levels) -> None:
        levels: Pixels = tables.clip(0, 255).astype(np.uint8)
        self._tables = levels if self._tables is None else np.take_along_axis(levels, self._tables.astype(np.intp), 1)

    def _counts(self) -> Levels:
        """How often each level occurs in each channel, (3, 256), with the tables that are still to be applied."""
        counts: Levels = self._kernels.count_levels(self.view_CHW)
        if self._tables is None:
            return counts
        moved = np.zeros_like(counts)
        np.add.at(moved, (np.arange(3)[:, None], self._tables), counts)
        return moved

    def finish(self) -> None:
        """Apply tables that wait for others."""
        if self._tables is not None:
            self._kernels.apply_tables(self.view_CHW, self._tables)
            self._tables = None

    def contrast(self, argument: float) -> None:
        """Levels by their distance from the mean grey of the view, to the nearest level, times the factor."""
        pixels = self.view_CHW.shape[1] ** 2
        mean = (2 * int(self._kernels.sum_grey(self.view_CHW)) + pixels) // (2 * pixels)
        self._look_up(np.stack([(mean * _FACTOR + int(argument * _FACTOR) * (_LEVELS - mean)) // _FACTOR] * 3))

    def saturate(self, argument: float) -> None:
        """Pixels by their distance from their grey, times the factor."""
        self._kernels.saturate(self.view_CHW, int(argument * _FACTOR))

    def sharpen(self, argument: float) -> None:
        """Pixels by their distance from the smoothed view, times the factor."""
        self._kernels.sharpen(self.view_CHW, int(argument * _FACTOR), self._other_CHW)
        self._swap()

    def rotate(self, argument: float) -> None:
        """Turn about the centre by degrees, counter-clockwise."""
        cos, sin = draw.rotation(argument)
        size = self.view_CHW.shape[1]
        # The centre stays: in 2^-21 pixels it lies at size · 2^20 in both directions.
        matrix = (cos, -sin, (_ONE - cos + sin) * size, sin, cos, (_ONE - sin - cos) * size)
        self._kernels.warp(self.view_CHW, matrix, phase_weights(self._interpolation), self._fill, self._other_CHW)
        self._swap()

    def slide_rows(self, slope: float, part: float) -> None:
        """Look each pixel up further right by a slope of its height in the view, and by a part of the side."""
        self._slide(self._kernels.slide_rows, slope, part)

    def slide_columns(self, slope: float, part: float) -> None:
        """Look each pixel up further down by a slope of its distance from the left, and by a part of the side."""
        self._slide(self._kernels.slide_columns, slope, part)

    def _slide(self, kernel: Callable[..., None], slope: float, part: float) -> None:
        # Fractions of the side, not pixels: teacher and student, each at its size, see one geometry.
        motion = (int(slope * _ONE), 2 * int(part * _ONE) * self.view_CHW.shape[1])
        kernel(self.view_CHW, motion, phase_weights(self._interpolation), self._fill, self._other_CHW)
        self._swap()


_OTHERS: dict[str, Callable[[Canvas, float], None]] = {
    "Contrast": Canvas.contrast,
    "Color": Canvas.saturate,
    "Sharpness": Canvas.sharpen,
    "Rotate": Canvas.rotate,
    "ShearX": lambda canvas, slope: canvas.slide_rows(slope, 0.0),
    "ShearY": lambda canvas, slope: canvas.slide_columns(slope, 0.0),
    "TranslateXRel": lambda canvas, part: canvas.slide_rows(0.0, part),
    "TranslateYRel": lambda canvas, part: canvas.slide_columns(0.0, part),
}
