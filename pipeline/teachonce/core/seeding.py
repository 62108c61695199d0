"""The one place that touches torch's global generator: weights and stochastic depth; nothing about views."""

import torch

from teachonce.core import hashing


def seed_torch(*parts: object) -> None:
    """Seed torch's global generator from plain values.

    Called before weights are made and before every step, so that a resumed run needs no saved generator state.
    """
    torch.manual_seed(hashing.seed64(*parts) >> 1)
