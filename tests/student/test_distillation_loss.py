"""The loss against a form written in NumPy, against deit's, and its laws.

Shapes: B samples, C classes.
"""

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies
from torch.nn import functional as F

from teachonce.student import distillation_loss

KINDS = ("none", "soft", "hard")
QUICK = hypothesis.settings(deadline=None, max_examples=40)


def loss_of(class_BC, dist_BC, label_B, target, weight_B, *, student, smoothing) -> distillation_loss.LossParts:
    """The loss of labels and weights as a batch has them."""
    classes = class_BC.shape[1]
    label_BC = F.one_hot(label_B, classes).to(class_BC.dtype) * (1 - smoothing) + smoothing / classes
    share_B = weight_B.to(class_BC.dtype) / weight_B.sum()
    return distillation_loss.weighted_total(class_BC, dist_BC, label_BC, target, share_B, spec=student)


def numbers(seed: int, *shape: int, scale: float = 3.0) -> np.ndarray:
    """float64, near normal, the same everywhere."""
    count = math.prod(shape)
    bits = np.random.Philox(key=seed).random_raw(12 * count).reshape(12, *shape)
    return scale * ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53).sum(axis=0) - 6 * scale


def log_softmax(x_BC: np.ndarray) -> np.ndarray:
    x_BC = x_BC - x_BC.max(axis=1, keepdims=True)
    return x_BC - np.log(np.exp(x_BC).sum(axis=1, keepdims=True))


def reference(*, class_BC, dist_BC, label_B, target, weight_B, student, smoothing) -> float:
    """The total, sample by sample, in float64."""
    classes = class_BC.shape[1]
    total, samples = 0.0, 0.0
    for i, weight in enumerate(weight_B):
        truth = np.full(classes, smoothing / classes)
        truth[label_B[i]] += 1 - smoothing
        value = -(truth * log_softmax(class_BC[i : i + 1])[0]).sum()
        if student.kind != "none":
            learner = (class_BC if dist_BC is None else dist_BC)[i : i + 1]
            if student.kind == "hard":
                teacher = -log_softmax(learner)[0, target[i]]
            else:
                p, q = log_softmax(target[i : i + 1] / student.tau)[0], log_softmax(learner / student.tau)[0]
                teacher = student.weight * student.tau**2 * (np.exp(p) * (p - q)).sum()
                teacher /= classes if student.kl_scale == "numel" else 1
            value = (1 - student.alpha) * value + student.alpha * teacher
        total += weight * value
        samples += weight
    return total / samples


def case(kind: str, seed: int, count: int = 6, classes: int = 7) -> dict[str, np.ndarray]:
    label_B = np.abs(numbers(seed + 1, count, scale=40)).astype(np.int64) % classes
    target = {"none": None, "soft": numbers(seed + 2, count, classes), "hard": (label_B * 3 + 1) % classes}[kind]
    return {
        "class_BC": numbers(seed + 3, count, classes),
        "dist_BC": numbers(seed + 4, count, classes),
        "label_B": label_B,
        "target": target,
    }


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor | None]:
    return {name: None if array is None else torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_numpy_form(student, kind, heads, smoothing):
    for seed, weight_B in ((0, [1, 1, 1, 1, 1, 1]), (50, [1, 0, 1, 1, 0, 0])):
        arrays = case(kind, seed)
        arrays["dist_BC"] = arrays["dist_BC"] if heads == 2 else None
        knobs = student(kind, **({"weight": 1.5, "kl_scale": "numel"} if kind == "soft" and seed else {}))
        found = loss_of(**tensors(arrays), weight_B=torch.tensor(weight_B).double(), student=knobs, smoothing=smoothing)
        expected = reference(**arrays, weight_B=weight_B, student=knobs, smoothing=smoothing)
        assert float(found.total) == pytest.approx(expected, rel=1e-12)
        single = {name: None if array is None else array.astype(np.float32) for name, array in arrays.items()}
        single["label_B"] = arrays["label_B"]
        single["target"] = arrays["target"] if kind == "hard" else single["target"]
        found = loss_of(**tensors(single), weight_B=torch.tensor(weight_B), student=knobs, smoothing=smoothing)
        assert float(found.total) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tau", [1.0, 3.0, 10.0])
def test_equals_the_deit_formula_on_whole_rows(student, tau):
    arrays = tensors(case("soft", 9, count=16, classes=100))
    class_BC, dist_BC, target = arrays["class_BC"].float(), arrays["dist_BC"].float(), arrays["target"].float()
    alpha = 0.3
    base = F.cross_entropy(class_BC, arrays["label_B"], label_smoothing=0.1)
    student_logp, teacher_logp = F.log_softmax(dist_BC / tau, dim=1), F.log_softmax(target / tau, dim=1)
    summed = F.kl_div(student_logp, teacher_logp, reduction="sum", log_target=True)
    expected = base * (1 - alpha) + summed * tau * tau / dist_BC.numel() * alpha
    found = loss_of(
        class_BC,
        dist_BC,
        arrays["label_B"],
        target,
        torch.ones(16),
        student=student("soft", alpha=alpha, tau=tau, kl_scale="numel"),
        smoothing=0.1,
    )
    assert float(found.total) == pytest.approx(float(expected), abs=1e-6)


def test_equals_the_deit_formula_of_hard_distillation(student):
    arrays = tensors(case("hard", 9))
    expected = 0.5 * F.cross_entropy(arrays["class_BC"], arrays["label_B"])
    expected = expected + 0.5 * F.cross_entropy(arrays["dist_BC"], arrays["target"])
    found = loss_of(**arrays, weight_B=torch.ones(6), student=student("hard"), smoothing=0.0)
    assert float(found.total) == pytest.approx(float(expected), abs=1e-12)


def parts(arrays: dict[str, torch.Tensor | None], tau: float) -> tuple[float, float]:
    """Cross entropy of the class head, and plain KL at tau of the distillation head: means over the batch."""
    kl = F.kl_div(
        F.log_softmax(arrays["dist_BC"] / tau, 1), F.softmax(arrays["target"] / tau, 1), reduction="batchmean"
    )
    return float(F.cross_entropy(arrays["class_BC"], arrays["label_B"])), float(kl)


def test_two_alpha_tau_squared_is_a_weight_of_two(student):
    """(1 − α) · CE + 2 · α · T² · KL."""
    arrays, alpha, tau = tensors(case("soft", 4)), 0.35, 4.0
    ce, kl = parts(arrays, tau)
    knobs = student("soft", alpha=alpha, tau=tau, weight=2.0)
    found = loss_of(**arrays, weight_B=torch.ones(6), student=knobs, smoothing=0.0)
    assert float(found.total) == pytest.approx((1 - alpha) * ce + 2 * alpha * tau**2 * kl, rel=1e-12)


def test_free_factors_of_both_parts_can_be_said(student):
    """α · CE + β · KL, up to the common factor that AdamW does not see: alpha = 1 − α, weight = β / (alpha · tau²)."""
    arrays, a, b, tau = tensors(case("soft", 5)), 0.7, 2.5, 3.0
    ce, kl = parts(arrays, tau)
    knobs = student("soft", alpha=1 - a, tau=tau, weight=b / ((1 - a) * tau**2))
    found = loss_of(**arrays, weight_B=torch.ones(6), student=knobs, smoothing=0.0)
    assert float(found.total) == pytest.approx(a * ce + b * kl, rel=1e-12)


def test_parts_are_told_and_do_not_carry_gradients(student):
    arrays = tensors(case("soft", 6))
    arrays["class_BC"].requires_grad_()
    found = loss_of(**arrays, weight_B=torch.ones(6), student=student("soft", alpha=0.25), smoothing=0.1)
    assert float(found.total.detach()) == pytest.approx(
        0.75 * float(found.label) + 0.25 * float(found.teacher), rel=1e-12
    )
    assert found.total.requires_grad
    assert not found.label.requires_grad
    assert not found.teacher.requires_grad


FLOATS = strategies.floats(-30, 30, width=32)
ROWS = strategies.integers(2, 9).flatmap(
    lambda classes: strategies.lists(
        strategies.tuples(*[strategies.lists(FLOATS, min_size=classes, max_size=classes)] * 2), min_size=1, max_size=5
    )
)
TAUS = strategies.sampled_from([0.5, 1.0, 2.0, 3.0, 10.0])


def pair(rows) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([row[0] for row in rows]).double(), torch.tensor([row[1] for row in rows]).double()


@QUICK
@hypothesis.given(rows=ROWS, tau=TAUS, shift=strategies.floats(-50, 50))
def test_a_shift_of_the_target_changes_nothing(rows, tau, shift):
    learner_BC, target_BC = pair(rows)
    torch.testing.assert_close(
        distillation_loss.tempered_kl(learner_BC, target_BC, tau),
        distillation_loss.tempered_kl(learner_BC, target_BC + shift, tau),
        rtol=1e-8,
        atol=1e-8,
    )


@QUICK
@hypothesis.given(rows=ROWS, tau=TAUS)
def test_soft_is_never_negative_and_zero_at_equality(rows, tau):
    learner_BC, target_BC = pair(rows)
    assert (distillation_loss.tempered_kl(learner_BC, target_BC, tau) >= -1e-9).all()
    torch.testing.assert_close(
        distillation_loss.tempered_kl(target_BC, target_BC, tau), torch.zeros(len(rows)).double()
    )


@QUICK
@hypothesis.given(kind=strategies.sampled_from(KINDS), seed=strategies.integers(0, 10_000), tau=TAUS)
def test_padding_has_no_say(student, kind, seed, tau):
    """Whatever stands in the rows of weight 0, the loss and every gradient are those of the rows without them."""
    knobs = student(kind, **({"tau": tau} if kind == "soft" else {}))
    arrays = tensors(case(kind, seed, count=6))
    other = tensors(case(kind, seed + 77, count=6))
    gradients = []
    for padding in (arrays, other):
        mixed = {
            name: None if value is None else torch.cat([value[:4], padding[name][4:]]) for name, value in arrays.items()
        }
        heads = [mixed[name].clone().requires_grad_() for name in ("class_BC", "dist_BC")]
        weight_B = torch.tensor([1.0, 1, 1, 1, 0, 0])
        found = loss_of(*heads, mixed["label_B"], mixed["target"], weight_B, student=knobs, smoothing=0.1)
        found.total.backward()
        gradients.append([found.total.detach(), *(head.grad for head in heads if head.grad is not None)])
    for one, two in zip(*gradients, strict=True):
        assert torch.equal(one, two)
    short = {name: None if value is None else value[:4] for name, value in arrays.items()}
    alone = loss_of(**short, weight_B=torch.ones(4), student=knobs, smoothing=0.1)
    torch.testing.assert_close(alone.total, gradients[0][0], rtol=1e-12, atol=1e-12)
    assert all((gradient[4:] == 0).all() for gradient in gradients[0][1:])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(student, kind):
    arrays = tensors(case(kind, 8, count=3, classes=4))
    weight_B = torch.tensor([1.0, 1.0, 0.0])

    def total(class_BC: torch.Tensor, dist_BC: torch.Tensor) -> torch.Tensor:
        return loss_of(
            class_BC, dist_BC, arrays["label_B"], arrays["target"], weight_B, student=student(kind), smoothing=0.1
        ).total

    assert torch.autograd.gradcheck(
        total, (arrays["class_BC"].requires_grad_(), arrays["dist_BC"].requires_grad_()), raise_exception=True
    )
