"""Scores against scikit-learn, and what counts as better."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from imgzoo.errors import UsageError
from imgzoo_train.ranks.world import World
from imgzoo_train.scores.metrics import (
    METRICS,
    Classification,
    MultiLabel,
    Regression,
    average_precision,
    better,
    oriented,
)

torch.manual_seed(1)
COUNT, CLASSES = 200, 7
OUTPUT = torch.randn(COUNT, CLASSES)
TARGET = torch.randint(0, CLASSES, (COUNT,))
LABELS = (torch.rand(COUNT, CLASSES) > 0.7).long()


def filled(scores, outputs, targets, size=33):
    for start in range(0, len(outputs), size):
        scores.update(outputs[start : start + size], targets[start : start + size])
    scores.reduce(World())
    return scores


def test_classification_equals_scikit_learn():
    scores = filled(Classification(CLASSES), OUTPUT, TARGET)
    found, guess = scores.result(), OUTPUT.argmax(1)
    assert found["top1"] == pytest.approx(100 * reference.accuracy_score(TARGET, guess))
    top5 = reference.top_k_accuracy_score(TARGET, OUTPUT.numpy(), k=5, labels=range(CLASSES))
    assert found["top5"] == pytest.approx(100 * top5)
    assert found["balanced_accuracy"] == pytest.approx(100 * reference.balanced_accuracy_score(TARGET, guess))
    assert found["f1"] == pytest.approx(100 * reference.f1_score(TARGET, guess, average="macro"))
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(OUTPUT, TARGET).item(), rel=1e-5)
    assert (scores.confusion.long().numpy() == reference.confusion_matrix(TARGET, guess)).all()
    recalls = reference.recall_score(TARGET, guess, average=None)
    assert [row["recall"] for row in scores.per_class()] == pytest.approx([100 * value for value in recalls])


def test_five_classes_or_fewer_have_a_top5_of_all():
    assert filled(Classification(3), OUTPUT[:, :3], TARGET % 3).result()["top5"] == 100.0


def test_calibration_is_zero_when_confidence_is_deserved():
    sure = torch.full((10, 2), -30.0)
    sure[:, 0] = 30.0
    right = filled(Classification(2), sure, torch.zeros(10, dtype=torch.long)).result()
    wrong = filled(Classification(2), sure, torch.ones(10, dtype=torch.long)).result()
    assert right["calibration_error"] == pytest.approx(0.0, abs=1e-6)
    assert wrong["calibration_error"] == pytest.approx(1.0)


def test_multi_label_equals_scikit_learn():
    found = filled(MultiLabel(CLASSES), OUTPUT, LABELS).result()
    guess = (OUTPUT > 0).long()
    assert found["map"] == pytest.approx(100 * reference.average_precision_score(LABELS, OUTPUT.numpy()))
    assert found["f1_micro"] == pytest.approx(100 * reference.f1_score(LABELS, guess, average="micro"))
    assert found["f1_macro"] == pytest.approx(100 * reference.f1_score(LABELS, guess, average="macro"))
    assert found["f1_samples"] == pytest.approx(100 * reference.f1_score(LABELS, guess, average="samples"))
    assert found["exact"] == pytest.approx(100 * (guess == LABELS).all(1).float().mean().item())


def test_a_threshold_moves_what_is_said_to_hold():
    low = filled(MultiLabel(CLASSES, threshold=0.2), OUTPUT, LABELS)
    guess = (OUTPUT.sigmoid() > 0.2).long()
    found = low.result()
    for kind in ("micro", "macro", "samples"):
        assert found[f"f1_{kind}"] == pytest.approx(100 * reference.f1_score(LABELS, guess, average=kind))
    recalls = reference.recall_score(LABELS, guess, average=None)
    assert [row["recall"] for row in low.per_class()] == pytest.approx([100 * value for value in recalls])
    for threshold in (0.0, 1.0, -1.0):
        with pytest.raises(UsageError, match="above 0 and below 1"):
            MultiLabel(CLASSES, threshold=threshold)


def test_a_class_without_an_image_has_no_recall_and_is_in_no_mean():
    output = torch.tensor([[9.0, 0, 0, 0], [0, 9, 0, 0], [0, 0, 0, 9]])  # the last is answered and never right
    one = filled(Classification(4), output, torch.tensor([0, 1, 0]))
    several = filled(MultiLabel(4), output - 5, torch.eye(4)[torch.tensor([0, 1, 0])])
    for scores in (one, several):
        recalls, precisions = zip(*((row["recall"], row["precision"]) for row in scores.per_class()))
        assert recalls[:2] == (50, 100) and math.isnan(recalls[2]) and math.isnan(recalls[3])
        assert precisions[:2] == (100, 100) and math.isnan(precisions[2]) and precisions[3] == 0
        assert scores.absent == 2
    assert one.result()["balanced_accuracy"] == 75 and one.result()["f1"] == pytest.approx(500 / 6)
    assert several.result()["f1_macro"] == pytest.approx(500 / 6)


@pytest.mark.parametrize("task", METRICS)
def test_metrics_are_named_before_anything_is_measured(task):
    assert tuple(METRICS[task](2).result()) == METRICS[task].names and METRICS[task].score in METRICS[task].names


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_average_precision_with_ties_equals_scikit_learn(rows):
    scores = torch.tensor([float(score) for score, _ in rows], dtype=torch.float64)
    truth = torch.tensor([float(label) for _, label in rows], dtype=torch.float64)
    if not truth.sum():
        assert math.isnan(average_precision(scores, truth))
        return
    assert average_precision(scores, truth) == pytest.approx(reference.average_precision_score(truth, scores))


def test_regression_equals_scikit_learn():
    truth, guess = torch.randn(COUNT, 2, dtype=torch.float64), torch.randn(COUNT, 2, dtype=torch.float64)
    found = filled(Regression(2), guess, truth).result()
    assert found["n"] == COUNT
    assert found["loss"] == pytest.approx(reference.mean_squared_error(truth, guess))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, guess))
    single = filled(Regression(1), guess[:, :1], truth[:, 0]).result()
    assert single["r2"] == pytest.approx(100 * reference.r2_score(truth[:, 0], guess[:, 0]))


@given(st.lists(st.floats(), max_size=8))
def test_what_is_not_a_number_is_never_best(scores):
    best = None
    for score in scores:
        if better(score, best):
            best = score
    finite = [score for score in scores if math.isfinite(score)]
    assert best == (max(finite) if finite else None)


def test_errors_are_better_when_smaller():
    assert oriented("loss", 2.0) < oriented("loss", 1.0)
    assert oriented("top1", 2.0) > oriented("top1", 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize("task", METRICS)
def test_outputs_that_are_no_numbers_are_scored_and_never_right(task, value):
    scores = METRICS[task](3)
    targets = {"classification": torch.tensor([0, 1]), "multilabel": torch.eye(3)[:2], "regression": torch.eye(3)[:2]}
    scores.update(torch.full((2, 3), value), targets[task])
    scores.reduce(World())
    found = scores.result()
    assert found["n"] == 2
    if value != value:
        assert found.get("top1", 0) == found.get("top5", 0) == found.get("balanced_accuracy", 0) == 0
        assert found["loss"] != found["loss"]
