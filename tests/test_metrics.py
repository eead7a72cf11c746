"""Metrics against hand-computed values."""

import numpy as np
import pytest

from utils.glue import TASKS
from utils.metrics import METRICS, NAMES, compute_metrics, predictions_of


def test_classification_metrics():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.0]])  # predicted 0 1 1 0
    labels = np.array([0, 1, 0, 1])
    assert compute_metrics("acc", logits, labels) == {"acc": 0.5}
    assert compute_metrics("acc_and_f1", logits, labels) == {"acc": 0.5, "f1": 0.5, "acc_and_f1": 0.5}
    assert compute_metrics("matthews_corrcoef", logits, labels) == {"matthews_corrcoef": 0.0}


def test_correlations():
    labels = np.array([1.0, 2.0, 3.0, 4.0])
    metrics = compute_metrics("corr", np.array([[1.0], [4.0], [9.0], [16.0]]), labels)
    assert metrics["spearman_corr"] == pytest.approx(1.0)
    assert metrics["pearson_corr"] == pytest.approx(0.98437, abs=1e-4)
    assert metrics["corr"] == pytest.approx((1 + metrics["pearson_corr"]) / 2)


def test_a_constant_prediction_correlates_with_nothing():
    assert set(compute_metrics("corr", np.ones((5, 1)), np.arange(5.0)).values()) == {0.0}


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


def test_logits_that_are_not_numbers_are_never_scored():
    with pytest.raises(FloatingPointError, match="diverged"):
        compute_metrics("acc", np.array([[np.nan, 1.0]]), np.array([1]))
