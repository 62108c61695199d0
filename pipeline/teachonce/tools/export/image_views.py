"""Images of any size as the views that a student is measured on, in operations that ONNX has.

The levels are those of `views.render`, every one: a resize of ONNX's own, or of whoever runs the graph, would cost
points of accuracy. A view is two products of matrices, since crop and resize are linear along each axis.

Shapes: B images, H and W of an image, S side of the view, E pixels of an image along one axis, D = 3 · W.
"""

import torch
from torch import Tensor

from teachonce.views import view_policy

_GRID = 1 << 16
"""Steps of the filter's distance to a pixel of the window (`views.resize_kernels.filter_value`)."""
_WEIGHTS = 1 << 14
"""Sum of a window's weights, which are integers."""
_PARTS = 1 << 6
"""Parts of a level that are kept between the axes (`views.resize_kernels.TO_64THS`)."""


class ImageViews(torch.nn.Module):
    """The evaluation crop of images, as a part of a graph."""

    def __init__(self, policy: view_policy.Policy, size: int) -> None:
        """Take over what decides a view.

        Args:
            policy: of evaluation, in which nothing is drawn at random.
            size: side of the view in pixels.
        """
        super().__init__()
        self._center = policy.center
        self._cubic = policy.interpolation == "bicubic"
        self._size = size

    def forward(self, images: Tensor) -> Tensor:
        """Levels float32 (B, 3, S, S) of uint8 (B, H, W, 3)."""
        batch, height, width = images.shape[:3]
        # float64, in which the renderer's integers and the floors of their quotients are exact; an integer division of
        # the graph would round negative numbers the other way.
        pixels_H, pixels_W = (torch.arange(extent).double() for extent in (height, width))
        extents = pixels_H[-1] + 1, pixels_W[-1] + 1
        down_SH, across_SW = (
            self._weights(pixels_E, *self._box(extent, torch.minimum(*extents)))
            for pixels_E, extent in zip((pixels_H, pixels_W), extents, strict=True)
        )
        # In the renderer's order, down before across: rounded in between to multiples of 2^-6 levels. float32 holds the
        # first sums exactly, not the second: magnitudes of a window's weights add up to less than 2^15, levels to 2^8.
        strip_BSD = _rounded(down_SH @ images.float().reshape(batch, height, 3 * width), _WEIGHTS // _PARTS)
        strip_BCSW = strip_BSD.reshape(batch, self._size, width, 3).permute(0, 3, 1, 2)
        sums_BCSS = strip_BCSW.double() @ across_SW.double().T
        return torch.clamp(_rounded(sums_BCSS, _WEIGHTS * _PARTS), min=0, max=255).float()

    def _box(self, extent: Tensor, shorter: Tensor) -> tuple[Tensor, Tensor]:
        """Where the crop begins along an axis, and its length (`views.render.source_box`)."""
        if self._center is None:
            return torch.zeros_like(extent), extent
        side = torch.clamp(torch.round(self._center * shorter), min=1)
        return torch.floor((extent - side) / 2), side

    def _weights(self, pixels_E: Tensor, start: Tensor, length: Tensor) -> Tensor:
        """Integers as float32 (S, E): by what each pixel of the image enters each of the view."""
        size = self._size
        middles_S = (2 * torch.arange(size).double() + 1) * length
        distance_SE = ((2 * (pixels_E - start) + 1) * size - middles_S[:, None]).abs()
        widest = torch.clamp(length, min=size)
        sums_SE = self._filter(torch.floor((distance_SE * _GRID + widest) / (2 * widest))).cumsum(dim=1)
        total_S1 = sums_SE[:, -1:]
        # Rounded as running sums, as the renderer does: a window's weights add up exactly.
        running_SE = torch.floor((sums_SE * (2 * _WEIGHTS) + total_S1) / (2 * total_S1))
        before_SE = torch.cat([torch.zeros_like(total_S1), running_SE[:, :-1]], dim=1)
        return (running_SE - before_SE).float()

    def _filter(self, distance: Tensor) -> Tensor:
        if not self._cubic:
            return torch.clamp(_GRID - distance, min=0) * 16
        near = (3 * distance - 5 * _GRID) * distance * distance + 2.0 * _GRID**3
        # Beyond two pixels the polynomial would rise again; at two it is 0.
        far = torch.clamp(distance, max=2.0 * _GRID)
        far = ((5 * _GRID - far) * far - 8.0 * _GRID**2) * far + 4.0 * _GRID**3
        return torch.floor((torch.where(distance < _GRID, near, far) + 2.0**28) / 2.0**29)


def _rounded(sums: Tensor, unit: int) -> Tensor:
    return torch.floor((sums + unit / 2) / unit)
