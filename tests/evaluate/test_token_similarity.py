"""Cosines of the two tokens against a forward pass written out by hand."""

import timm
import torch
from torch.nn import functional as F

from teachonce.core import seeding
from teachonce.evaluate import token_similarity


def network(name: str) -> torch.nn.Module:
    seeding.seed_torch("tokens")
    arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 4}
    return timm.create_model(name, **arguments).eval()


def images(count: int) -> torch.Tensor:
    return torch.linspace(-2, 2, count * 3 * 16 * 16).sin().mul(3).view(count, 3, 16, 16)


@torch.no_grad()
def by_hand(model: torch.nn.Module, batch: torch.Tensor) -> list[float]:
    patches = model.patch_embed(batch)
    prefix = torch.cat([model.cls_token, model.dist_token], dim=1).expand(len(batch), -1, -1)
    x = torch.cat([prefix, patches], dim=1) + model.pos_embed
    cosines = [F.cosine_similarity(x[:, 0], x[:, 1]).mean().item()]
    for block in model.blocks:
        x = block(x)
        cosines.append(F.cosine_similarity(x[:, 0], x[:, 1]).mean().item())
    return cosines


@torch.no_grad()
def test_cosines_equal_those_computed_by_hand_whatever_the_batches():
    model, batch = network("deit_tiny_distilled_patch16_224"), images(5)
    with token_similarity.collect_cosines(model) as cosines:
        for part in batch.split(2):
            model.forward_features(part)
    wanted = by_hand(model, batch)
    assert len(wanted) == 4
    assert torch.allclose(torch.tensor(cosines.means()), torch.tensor(wanted), atol=1e-5)


@torch.no_grad()
def test_nothing_is_left_behind():
    model = network("deit_tiny_distilled_patch16_224")
    with token_similarity.collect_cosines(model) as cosines:
        pass
    model.forward_features(images(2))
    assert cosines.means() == []


def test_a_student_with_one_token_has_no_cosine():
    with token_similarity.collect_cosines(network("deit_tiny_patch16_224")) as cosines:
        assert cosines is None
