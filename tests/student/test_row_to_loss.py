"""From a row to the loss: what a student is compared with, and its gradient.

Shapes: B samples, C classes.
"""

import numpy as np
import pytest
import torch

from teachonce.format import basis, codec, row_expansion
from teachonce.student import distillation_loss

CLASSES, RANK, STEP, K = 9, 4, 0.5, 5
PEAKS = pytest.mark.parametrize("scale", [1, 5], ids=["smooth", "peaky"])
TAILS = pytest.mark.parametrize("tail", ["flat", "coded", "whole"])


def numbers(seed: int, *shape: int) -> np.ndarray:
    """float64 in −1 … 1."""
    return (np.random.Philox(key=seed).random_raw(int(np.prod(shape))).reshape(shape) / 2**63) - 1


def basis_of() -> basis.Basis:
    components = np.linalg.qr(numbers(1, CLASSES, CLASSES))[0][:RANK]
    parts = np.full(CLASSES, -3.0), np.ones(CLASSES), components
    return basis.Basis(*(np.ascontiguousarray(part, np.float32) for part in parts))


def row_of(logits_BC: np.ndarray, tail: str) -> tuple[dict[str, torch.Tensor], row_expansion.TailDecoder | None]:
    if tail == "whole":
        return row_expansion.to_tensors(codec.pack(logits_BC, "all")), None
    found = basis_of()
    coded = codec.TailCoding(found, STEP) if tail == "coded" else None
    sketch = row_expansion.TailDecoder(torch.from_numpy(found.mean_C), torch.from_numpy(found.components_RC) * STEP)
    return row_expansion.to_tensors(codec.pack(logits_BC, K, coded)), sketch if coded else None


def logits(scale: int) -> np.ndarray:
    return (numbers(2, 3, CLASSES) * 4 * scale).astype(np.float32)


@PEAKS
@TAILS
@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_the_gradient_is_that_of_finite_differences_and_the_difference_of_softmaxes(student, scale, tail, k, tau):
    row, sketch = row_of(logits(scale), tail)
    knobs = student("soft", alpha=1.0, tau=tau, k=k)
    found_BC = distillation_loss.teacher_target(row, knobs, CLASSES, sketch)
    assert torch.isfinite(found_BC).all()
    p_BC = (found_BC.double() / tau).softmax(dim=1)
    assert torch.allclose(p_BC.sum(dim=1), torch.ones(3).double())
    learner_BC = torch.from_numpy(numbers(3, 3, CLASSES) * 3).requires_grad_()

    def total(learner_BC: torch.Tensor) -> torch.Tensor:
        label_BC, share_B = torch.eye(3, CLASSES).double(), torch.ones(3).double() / 3
        return distillation_loss.weighted_total(
            learner_BC, None, label_BC, found_BC.double(), share_B, spec=knobs
        ).total

    assert torch.autograd.gradcheck(total, (learner_BC,))
    (gradient_BC,) = torch.autograd.grad(total(learner_BC), learner_BC)
    expected_BC = tau * ((learner_BC.detach() / tau).softmax(dim=1) - p_BC) / 3
    assert torch.allclose(gradient_BC, expected_BC, atol=1e-12)


@PEAKS
@pytest.mark.parametrize("tail", ["flat", "coded"])
def test_a_smaller_k_reads_a_larger_cache_as_its_own(student, scale, tail):
    larger, sketch = row_of(logits(scale), tail)
    smaller = larger | {name: larger[name][:, :2] for name in ("class_id", "logp")}
    asked = distillation_loss.teacher_target(larger, student("soft", k=2), CLASSES, sketch)
    assert torch.equal(asked, distillation_loss.teacher_target(smaller, student("soft"), CLASSES, sketch))
    assert not torch.equal(asked, distillation_loss.teacher_target(larger, student("soft"), CLASSES, sketch))
