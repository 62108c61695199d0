"""Mixup and cutmix, exactly: which rows are mixed, how much of each, and the mixed pixels.

A mixed view is uint8 pixels like any other, and the same on every device: a weight is a multiple of 2^-12, so that
integers, and float32 as well, hold a weighted sum of bytes without rounding until it is rounded to whole levels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from teachonce.core import hashing
from teachonce.views import draw, hash_stream, kernel_choice, render
from teachonce.views.view_policy import MixupCutmix, Policy

WEIGHT_BITS = 12
"""Grid of the weight of a view's own image."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MixParams:
    """How much of a mixed view is of its own image and how much of its partner's; the same at every size."""

    weight: float
    """Weight of the view's own image, in pixels and in the label: [0, 1]."""
    box: tuple[float, float, float, float] | None
    """Cutmix: left, top, right and bottom of the other image's part, as fractions of the side. Mixup: None."""


UNMIXED = MixParams(1.0, None)
"""Of a view that stays as it is."""


def pair_rows(policy: Policy, rows: int, tar_sha256: str, block: int) -> tuple[tuple[int, ...], ...]:
    """The rows of a tar in the groups that are never split: pairs where the policy mixes, else single rows.

    A pair is mutual and holds for all aug seeds of the block. Where the count is odd, one row stays alone, unmixed.

    Args:
        policy: of the views.
        rows: count of the tar's.
        tar_sha256: identity of the tar.
        block: aug seed divided by `policy.repeats`, rounded down.

    Returns:
        Groups of one or two rows, rising; in the order in which a stream of rows completes them.
    """
    if policy.mix is None:
        return tuple((row,) for row in range(rows))
    # From the tar's identity, not from a batch: teacher and student pair alike, whatever their batches and workers.
    order = hashing.permutation(rows, "pairs", tar_sha256, block).tolist()
    pairs = [tuple(sorted(order[first : first + 2])) for first in range(0, rows, 2)]
    # In the order in which a stream has both rows. Lanes count by it: another order would change every student's
    # batches.
    return tuple(sorted(pairs, key=lambda pair: pair[-1]))


def partner_row(policy: Policy, rows: int, tar_sha256: str, aug_seed: int, row: int) -> int | None:
    """The row that a row is mixed with under an aug seed; None where it stays alone.

    Args:
        policy: of the views.
        rows: count of the tar's.
        tar_sha256: identity of the tar.
        aug_seed: the augmentation seed.
        row: whose partner.
    """
    if policy.mix is None:
        return None
    # Pairs hold for the whole block, so that both images are decoded once for all its seeds.
    pair = next(pair for pair in pair_rows(policy, rows, tar_sha256, aug_seed // policy.repeats) if row in pair)
    return next((other for other in pair if other != row), None)


def draw_params(mix: MixupCutmix, key: str, aug_seed: int) -> MixParams:
    """Draw what a paired view keeps of itself.

    Args:
        mix: the policy's part on mixing.
        key: of the view's own sample.
        aug_seed: of the view.
    """
    chance, switch, share, x, y, *_ = hash_stream.uniforms("mix", key, aug_seed)
    if chance >= mix.probability:
        return UNMIXED
    if mix.cutmix_alpha and (not mix.mixup_alpha or switch < mix.switch_probability):
        # The box is centred anywhere and clipped, so that its part is known only then.
        half = math.sqrt(1 - _beta(mix.cutmix_alpha, share)) / 2
        left, right = max(0.0, x - half), min(1.0, x + half)
        top, bottom = max(0.0, y - half), min(1.0, y + half)
        weight = hash_stream.round_to_grid(1 - (right - left) * (bottom - top), WEIGHT_BITS)
        return MixParams(weight, (left, top, right, bottom))
    return MixParams(_beta(mix.mixup_alpha, share), None)


def _beta(alpha: float, uniform: float) -> float:
    """Beta(alpha, alpha) by its inverse distribution function; the grid hides SciPy's last digits."""
    return hash_stream.round_to_grid(float(special.betaincinv(alpha, alpha, uniform)), WEIGHT_BITS)


def pixel_box(params: MixParams, size: int) -> render.Box:
    """The other image's part of a view of this size; empty for mixup."""
    if params.box is None:
        return 0, 0, 0, 0
    # Halves go up, as FORMAT.md says; round() would take them to the even number.
    left, top, right, bottom = (math.floor(edge * size + 0.5) for edge in params.box)
    return left, top, right, bottom


def blend(view_CHW: Pixels, other_CHW: Pixels, params: MixParams) -> None:
    """Mix a view with another one, in place; halves are rounded up.

    Args:
        view_CHW: uint8 (3, H, W), C-contiguous: the view itself.
        other_CHW: its partner, of the same shape.
        params: of the view, from `draw_params`.
    """
    if params.box is not None:
        left, top, right, bottom = pixel_box(params, view_CHW.shape[1])
        view_CHW[:, top:bottom, left:right] = other_CHW[:, top:bottom, left:right]
    else:
        kernel_choice.chosen_kernels().mix(view_CHW, other_CHW, int(params.weight * (1 << WEIGHT_BITS)))


def render_mixed(policy: Policy, images: Sequence[Pixels], keys: Sequence[str], aug_seed: int, size: int) -> Pixels:
    """The views of a mix group, mixed where it is a pair: uint8 (N, 3, size, size).

    Args:
        policy: of the views.
        images: uint8 (H, W, 3), of the N rows of a mix group.
        keys: of the same rows.
        aug_seed: the augmentation seed.
        size: side of the views in pixels.
    """
    views_NCHW = np.empty((len(images), 3, size, size), np.uint8)
    render_mixed_into(policy, images, keys, aug_seed, views_NCHW)
    return views_NCHW


def render_mixed_into(
    policy: Policy, images: Sequence[Pixels], keys: Sequence[str], aug_seed: int, views_NCHW: Pixels
) -> None:
    """As `render_mixed`, into places of a batch, each of which is C-contiguous."""
    for image, key, view_CHW in zip(images, keys, views_NCHW, strict=True):
        render.to_pixels(image, draw.view_params(policy, key, aug_seed), view_CHW.shape[1], view_CHW)
    # Mixed last, as timm mixes its batches: each view is rendered as if it were alone.
    if policy.mix is not None and len(keys) == 2:
        first_CHW = views_NCHW[0].copy()
        blend(views_NCHW[0], views_NCHW[1], draw_params(policy.mix, keys[0], aug_seed))
        blend(views_NCHW[1], first_CHW, draw_params(policy.mix, keys[1], aug_seed))
