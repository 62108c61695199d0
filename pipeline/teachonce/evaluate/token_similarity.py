"""How alike the class token and the distillation token are, layer by layer.

The DeiT paper (Touvron et al. 2021 §4) finds a cosine of 0.06 between the tokens as learned and of 0.93 at the last
layer: they start as strangers and end alike, but not the same.

Shapes: B images, N tokens, D numbers a token.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F


class Cosines:
    """Sums over images of the two tokens' cosine, by layer; 0 is the input of the first block."""

    def __init__(self, layers: int) -> None:
        self._sums = [0.0] * layers
        self._counts = [0] * layers

    def add(self, layer: int, tokens_BND: Tensor) -> None:
        """Count the tokens of a batch at one layer."""
        # timm's distilled DeiT puts the class token first and the distillation token second, before all patches.
        cosine_B = F.cosine_similarity(tokens_BND[:, 0].double(), tokens_BND[:, 1].double(), dim=1)
        self._sums[layer] += float(cosine_B.sum())
        self._counts[layer] += len(cosine_B)

    def means(self) -> list[float]:
        """Mean cosine by layer: of the input embedding, then after each block. Empty before the first image."""
        return [total / count for total, count in zip(self._sums, self._counts, strict=True) if count]


@contextmanager
def collect_cosines(network: torch.nn.Module) -> Iterator[Cosines | None]:
    """Collect the cosines of all images that `network` sees within the block; None where it has one token only."""
    if not hasattr(network, "head_dist"):
        yield None
        return
    blocks = list(network.blocks.children())  # type: ignore[union-attr]
    cosines = Cosines(len(blocks) + 1)

    def before(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        cosines.add(0, inputs[0])

    def after(layer: int) -> torch.utils.hooks.RemovableHandle:
        block: torch.nn.Module = blocks[layer - 1]
        return block.register_forward_hook(lambda _module, _inputs, output: cosines.add(layer, output))

    # Hooks, not a copy of timm's forward pass: the network that is measured is the one that answers.
    handles = [blocks[0].register_forward_pre_hook(before), *(after(layer) for layer in range(1, len(blocks) + 1))]
    try:
        yield cosines
    finally:
        # A network that is used again would go on counting, and keep this object alive.
        for handle in handles:
            handle.remove()
