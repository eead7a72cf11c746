"""Metrics against hand-computed values."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from utils.metrics import METRICS, NAMES, compute_metrics, predictions_of
from utils.tasks import TASKS

# 3 true positives, 1 false positive, 2 false negatives, 4 true negatives: no two numbers below are the same
LABELS = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
PREDICTED = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])


def logits_of(classes, number):
    """Logits (N, number) whose highest are these classes."""
    return np.eye(number)[classes] - 0.25


def test_accuracy_is_the_share_of_right_ones():
    assert compute_metrics("acc", logits_of(PREDICTED, 2), LABELS) == {"acc": pytest.approx(7 / 10)}
    three = logits_of(np.array([2, 0, 1, 1, 2]), 3)
    assert compute_metrics("acc", three, np.array([2, 1, 1, 0, 0])) == {"acc": pytest.approx(2 / 5)}


def test_f1_is_of_class_1_and_the_mean_is_of_both():
    assert compute_metrics("acc_and_f1", logits_of(PREDICTED, 2), LABELS) == {
        "acc": pytest.approx(0.7),
        "f1": pytest.approx(6 / 9),  # 2 * 3 / (2 * 3 + 1 + 2); of class 0 it is 8 / 11
        "acc_and_f1": pytest.approx((0.7 + 6 / 9) / 2),
    }


def test_f1_alone_is_of_the_second_class_and_macro_f1_is_the_mean_of_all_classes():
    assert compute_metrics("f1", logits_of(PREDICTED, 2), LABELS) == {
        "f1": pytest.approx(6 / 9),
        "acc": pytest.approx(0.7),
    }
    assert compute_metrics("macro_f1", logits_of(PREDICTED, 2), LABELS) == {
        "macro_f1": pytest.approx((6 / 9 + 8 / 11) / 2),
        "acc": pytest.approx(0.7),
    }
    # of three classes: 2 of 4, 0 as nothing right, 4 of 5; a fourth one never occurs
    predicted, labels = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 0, 2, 2, 0])
    found = compute_metrics("macro_f1", logits_of(predicted, 4), labels)
    assert found == {"macro_f1": pytest.approx((2 / 5 + 0 + 4 / 5) / 3), "acc": pytest.approx(3 / 6)}
    assert found["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, predicted, average="macro"))


def test_matthews_correlation_is_of_any_number_of_classes():
    predicted, labels = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 0, 2, 2, 0])
    # Gorodkin's R: 3 right of 6, classes predicted 2, 1, 3 times and true 3, 1, 2 times
    expected = (3 * 6 - (2 * 3 + 1 * 1 + 3 * 2)) / ((36 - 14) * (36 - 14)) ** 0.5
    found = compute_metrics("matthews_corrcoef", logits_of(predicted, 3), labels)
    assert found == {"matthews_corrcoef": pytest.approx(expected)}
    assert expected == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predicted))


def test_matthews_correlation_has_its_sign():
    expected = 10 / 600**0.5  # (3 * 4 - 1 * 2) / sqrt(4 * 5 * 5 * 6)
    found = compute_metrics("matthews_corrcoef", logits_of(PREDICTED, 2), LABELS)
    assert found == {"matthews_corrcoef": pytest.approx(expected)}
    turned = compute_metrics("matthews_corrcoef", logits_of(1 - PREDICTED, 2), LABELS)
    assert turned == {"matthews_corrcoef": pytest.approx(-expected)}


@pytest.mark.parametrize("sign", [1, -1])
def test_correlations_of_values_and_of_ranks(sign):
    scores = sign * np.array([[5.0], [1.0], [2.0], [3.0], [19.0]])
    assert compute_metrics("corr", scores, np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == {
        "pearson_corr": pytest.approx(sign * 30 / 2200**0.5),  # products of deviations 30, squares 10 and 220
        "spearman_corr": pytest.approx(sign * 0.4),  # 1 - 6 * (9 + 1 + 1 + 1) / (5 * 24)
        "corr": pytest.approx(sign * (30 / 2200**0.5 + 0.4) / 2),
    }
    for name in ("pearson", "spearman"):
        theirs = getattr(scipy.stats, f"{name}r")(scores[:, 0], np.arange(5.0))[0]
        assert compute_metrics("corr", scores, np.arange(5.0))[f"{name}_corr"] == pytest.approx(theirs)


def test_a_constant_prediction_correlates_with_nothing():
    assert set(compute_metrics("corr", np.ones((5, 1)), np.arange(5.0)).values()) == {0.0}


def test_scores_that_differ_by_rounding_alone_correlate_as_exactly_as_any():
    labels = np.random.default_rng(0).uniform(0, 5, 1500).astype(np.float32)
    scores = np.full((1500, 1), 2.5, np.float32)
    scores[7] = np.nextafter(np.float32(2.5), np.float32(3))
    of_one = np.zeros(1500)
    of_one[7] = 1
    expected = scipy.stats.pearsonr(of_one, labels)[0]
    assert compute_metrics("corr", scores, labels)["pearson_corr"] == pytest.approx(expected)


def test_predictions_are_classes_or_scores():
    assert predictions_of(np.array([[0.1, 0.2, 0.0]])).tolist() == [1]
    assert predictions_of(np.array([[3.5], [1.0]])).tolist() == [3.5, 1.0]


def test_every_task_has_a_metric_and_its_names_are_right():
    for task in TASKS.values():
        assert task.metric in NAMES[task.metric]
    for metric, names in NAMES.items():
        columns = 1 if metric == "corr" else 2
        found = compute_metrics(metric, np.random.default_rng(0).random((9, columns)), np.array([0, 1] * 4 + [1]))
        assert set(found) == set(names)
    assert set(METRICS) == set(NAMES)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", ["acc", "acc_and_f1", "f1", "macro_f1", "matthews_corrcoef", "corr"])
def test_logits_that_are_not_finite_are_never_scored(metric, bad):
    logits = np.arange(4.0)[:, None] if metric == "corr" else logits_of(np.array([0, 1, 0, 1]), 2)
    logits[2, 0] = bad
    with pytest.raises(FloatingPointError, match="diverged"):
        compute_metrics(metric, logits, np.array([0, 1, 1, 0]))
