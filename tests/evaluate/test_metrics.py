"""Numbers against scikit-learn, NumPy and torch."""

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies
from sklearn import metrics as reference

from teachonce.evaluate import heads, metrics

ROWS, CLASSES = 200, 9


def logits(seed: int) -> np.ndarray:
    bits = np.random.Philox(key=seed).random_raw(ROWS * CLASSES)
    return ((bits >> np.uint64(40)).astype(np.float32) / 2**22 - 2).reshape(ROWS, CLASSES)


LABEL = np.arange(ROWS) % CLASSES


@pytest.mark.parametrize("count", [1, 3, 5])
def test_top_k_equals_scikit_learn(count):
    share = metrics.in_top_k(logits(0), LABEL, count).mean()
    assert share == pytest.approx(reference.top_k_accuracy_score(LABEL, logits(0), k=count))


def test_top1_is_the_first_of_the_likeliest():
    classes = metrics.top1_class(logits(1))
    assert classes.dtype == np.int32
    assert (classes == logits(1).argmax(axis=1)).all()
    tied = np.array([[0.0, 2.0, 2.0, 1.0]], np.float32)
    assert metrics.top1_class(tied).tolist() == [1]
    assert metrics.in_top_k(tied, np.array([2]), 1).tolist() == [False]


def test_standard_error_is_that_of_the_sampled_share():
    hits = np.array([1.0] * 150 + [0.0] * 50)
    assert metrics.standard_error(0.75, 200) == pytest.approx(hits.std() / np.sqrt(200))
    assert metrics.standard_error(1.0, 200) == 0


def test_agreement_is_accuracy_against_the_other():
    left, right = metrics.top1_class(logits(2)), metrics.top1_class(logits(3))
    assert metrics.agreement(left, right) == pytest.approx(reference.accuracy_score(left, right))


def test_kl_equals_torch_in_float64():
    teacher, student = (torch.from_numpy(logits(seed)).log_softmax(dim=1) for seed in (4, 5))
    wanted = torch.nn.functional.kl_div(student.double(), teacher.double(), log_target=True, reduction="none").sum(1)
    assert metrics.kl_divergence(teacher.numpy(), student.numpy()) == pytest.approx(wanted.numpy(), abs=1e-6)
    assert metrics.kl_divergence(teacher.numpy(), teacher.numpy()).max() == 0


def test_kl_ignores_what_the_teacher_rules_out():
    teacher = np.log(np.array([[0.5, 0.5, 1e-300]])).astype(np.float64)
    teacher[0, 2] = -np.inf
    student = np.log(np.array([[0.25, 0.25, 0.5]]))
    assert metrics.kl_divergence(teacher, student) == pytest.approx([np.log(2)])


@hypothesis.given(strategies.lists(strategies.floats(-30, 30, width=32), min_size=2, max_size=8))
def test_sum_of_softmaxes_is_what_its_name_says(row):
    left, right = torch.tensor([row]), torch.tensor([row[::-1]])
    probabilities = heads.read(left, right)["sum_softmax"].logp_BC.exp()
    assert torch.allclose(probabilities, (left.softmax(1) + right.softmax(1)) / 2, atol=1e-6)


def test_one_head_gives_one_reading():
    assert list(heads.read(torch.zeros(1, 3), None)) == ["class"]
    both = heads.read(torch.tensor([[0.0, 4.0]]), torch.tensor([[2.0, 0.0]]))
    assert both["both"].scores_BC.tolist() == [[1.0, 2.0]]
