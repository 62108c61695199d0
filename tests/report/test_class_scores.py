"""Accuracy by class and confusions, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as reference

from teachonce.report import class_scores

LABEL = np.array([0, 0, 1, 1, 1, 2, -1, 0], np.int32)
ANSWER = np.array([0, 1, 1, 0, 0, 2, 2, 1], np.int32)
ARRAYS = {"label": LABEL, "teacher": np.array([0, 0, 1, 1, 0, 2, 0, 0], np.int32), "class": LABEL, "both": ANSWER}
NAMES = ("a", "b", "c", "never")


def test_confusions_are_counted_of_labelled_images():
    counts = class_scores.count_confusions(ARRAYS, len(NAMES))
    wanted = reference.confusion_matrix(LABEL[LABEL >= 0], ANSWER[LABEL >= 0], labels=range(4))
    assert (counts == wanted).all()
    # As often as each other: in label order.
    assert class_scores.list_confusions(counts, NAMES, 9) == [
        class_scores.Confusion("a", "b", 2, pytest.approx(2 / 3)),
        class_scores.Confusion("b", "a", 2, pytest.approx(2 / 3)),
    ]
    assert len(class_scores.list_confusions(counts, NAMES, 1)) == 1


def test_classes_are_scored_by_both_heads_and_without_an_image_left_out():
    scores = class_scores.score_classes({"soft": ARRAYS, "plain": {**ARRAYS, "both": LABEL}}, NAMES)
    assert [(score.name, score.images) for score in scores] == [("a", 3), ("b", 3), ("c", 1)]
    assert scores[1] == class_scores.ClassScore(
        "b", 3, pytest.approx(2 / 3), (pytest.approx(1 / 3), pytest.approx(1.0))
    )
