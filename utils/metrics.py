"""Metrics of the tasks: functions from predictions and labels to named numbers.

sklearn and scipy are imported where they are used: that takes a second, which --help and bad input do not wait for.
"""

from collections.abc import Callable, Sequence

import numpy as np

Metrics = dict[str, float]


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """Accuracy, 0 to 1. Arguments of all metrics: predictions (N,), labels (N,)."""
    from sklearn.metrics import accuracy_score

    return {"acc": float(accuracy_score(labels, predictions))}


def accuracy_and_f1(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """Accuracy, F1 of class 1, and their mean."""
    from sklearn.metrics import f1_score

    acc = accuracy(predictions, labels)["acc"]
    f1 = float(f1_score(labels, predictions, zero_division=0))
    return {"acc": acc, "f1": f1, "acc_and_f1": (acc + f1) / 2}


def f1_of_second(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """F1 of the second of two classes, and accuracy."""
    both = accuracy_and_f1(predictions, labels)
    return {"f1": both["f1"], "acc": both["acc"]}


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """Mean of all classes' F1, each counting the same, and accuracy; classes that never occur are left out."""
    from sklearn.metrics import f1_score

    macro = float(f1_score(labels, predictions, average="macro", zero_division=0))
    return {"macro_f1": macro, **accuracy(predictions, labels)}


def correlations(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """Pearson and Spearman correlation and their mean; 0 if either side is constant, where they are undefined."""
    from scipy.stats import pearsonr, spearmanr

    predictions, labels = np.asarray(predictions, float), np.asarray(labels, float)  # which may differ by an ulp
    defined = len(labels) > 1 and np.ptp(predictions) > 0 and np.ptp(labels) > 0
    pearson = float(pearsonr(predictions, labels)[0]) if defined else 0.0
    spearman = float(spearmanr(predictions, labels)[0]) if defined else 0.0
    return {"pearson_corr": pearson, "spearman_corr": spearman, "corr": (pearson + spearman) / 2}


def matthews(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """Matthews correlation coefficient, -1 to 1."""
    from sklearn.metrics import matthews_corrcoef

    return {"matthews_corrcoef": float(matthews_corrcoef(labels, predictions))}


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], Metrics]] = {
    "acc": accuracy,
    "acc_and_f1": accuracy_and_f1,
    "corr": correlations,
    "f1": f1_of_second,
    "macro_f1": macro_f1,
    "matthews_corrcoef": matthews,
}
NAMES = {  # metric of a task -> all numbers that it returns, the one that selects weights by default first
    "acc": ("acc",),
    "acc_and_f1": ("acc_and_f1", "acc", "f1"),
    "corr": ("corr", "pearson_corr", "spearman_corr"),
    "f1": ("f1", "acc"),
    "macro_f1": ("macro_f1", "acc"),
    "matthews_corrcoef": ("matthews_corrcoef",),
}
OF_SCORES = ("corr",)  # metrics of regression; the others are of classes
OF_TWO_CLASSES = ("f1", "acc_and_f1")


def metric_fault(metric: str, labels: Sequence[str]) -> str | None:
    """Why a metric is none of a task with these labels, () being regression; None if it is one."""
    metrics = [name for name in METRICS if (name in OF_SCORES) != bool(labels)]
    if metric not in metrics:
        return f"expected one of {', '.join(metrics)} for {'classes' if labels else 'scores'}"
    if metric in OF_TWO_CLASSES and len(labels) != 2:
        return f"for two classes, found {len(labels)}; macro_f1 is for any number"
    return None


def predictions_of(logits: np.ndarray) -> np.ndarray:
    """Predicted class ids, or scores if C = 1: (N, C) -> (N,)."""
    return logits[:, 0] if logits.shape[1] == 1 else logits.argmax(1)


def compute_metrics(metric: str, logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """A metric of logits (N, C) against labels (N,); `metric` is a key of METRICS.

    Raises:
        FloatingPointError: a logit is infinite or NaN.
    """
    if not np.isfinite(logits).all():
        raise FloatingPointError("logits that are not numbers, or infinite: the model has diverged")
    return METRICS[metric](predictions_of(logits), labels)


def baseline(labels: np.ndarray, names: tuple[str, ...]) -> dict[str, float | int | str]:
    """Number of rows, the commoner class and its share: the accuracy of a model that ignores its input.

    Args:
        labels: (N,), class ids or scores.
        names: names of the classes; () for scores, whose baseline is a correlation of 0.
    """
    if not names:
        return {"rows": len(labels)}
    counts = np.bincount(labels, minlength=len(names))
    commoner = int(counts.argmax())
    return {
        "rows": len(labels),
        "commoner_class": names[commoner],
        "commoner_share": float(counts[commoner] / len(labels)),
    }


def only_answer(predictions: np.ndarray, names: tuple[str, ...]) -> str | None:
    """The class or score that all predictions (N,) share; None if they differ.

    Args:
        names: names of the classes; () for scores.
    """
    first = predictions[0]
    if not (predictions == first).all():
        return None
    return names[int(first)] if names else f"{first:.3f}"


def best_of(values: dict[str, float]) -> list[str]:
    """All names whose value is the highest, in their order; more than one if they tie."""
    highest = max(values.values())
    return [name for name, value in values.items() if value == highest]
