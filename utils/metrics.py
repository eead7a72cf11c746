"""One metric function per task: predictions and labels in, named numbers out.

sklearn and scipy take a second to import, which --help and bad input need not wait for: they are imported where used.
"""

from collections.abc import Callable

import numpy as np

Metrics = dict[str, float]


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """Share of examples classified right."""
    from sklearn.metrics import accuracy_score

    return {"acc": float(accuracy_score(labels, predictions))}


def accuracy_and_f1(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """Accuracy, F1 of class 1, and their mean."""
    from sklearn.metrics import f1_score

    acc = accuracy(predictions, labels)["acc"]
    f1 = float(f1_score(labels, predictions, zero_division=0))
    return {"acc": acc, "f1": f1, "acc_and_f1": (acc + f1) / 2}


def correlations(predictions: np.ndarray, labels: np.ndarray) -> Metrics:
    """Pearson and Spearman correlation and their mean; 0 where one side is constant and none is defined."""
    from scipy.stats import pearsonr, spearmanr

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
    "matthews_corrcoef": matthews,
}
NAMES = {
    "acc": ("acc",),
    "acc_and_f1": ("acc_and_f1", "acc", "f1"),
    "corr": ("corr", "pearson_corr", "spearman_corr"),
    "matthews_corrcoef": ("matthews_corrcoef",),
}


def predictions_of(logits: np.ndarray) -> np.ndarray:
    """Class ids, or scores if there is one class: (N, C) -> (N,)."""
    return logits[:, 0] if logits.shape[1] == 1 else logits.argmax(1)


def compute_metrics(metric: str, logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """A task's numbers from logits (N, C) and labels (N,).

    Raises:
        FloatingPointError: a logit is infinite or not a number, so that no metric could be trusted.
    """
    if not np.isfinite(logits).all():
        raise FloatingPointError("logits that are not numbers, or infinite: the model has diverged")
    return METRICS[metric](predictions_of(logits), labels)


def baseline(labels: np.ndarray, names: tuple[str, ...]) -> dict[str, float | int | str]:
    """What numbers on these rows have to be compared with: how many rows, the commoner class and its share.

    Args:
        labels: (N,), class ids or scores.
        names: of the classes; () for scores, which have no commoner class: there a correlation of 0 says as much.
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
    """The class, or score, that is predicted for every row, (N,); None if there are several."""
    first = predictions[0]
    if not (predictions == first).all():
        return None
    return names[int(first)] if names else f"{first:.3f}"


def best_of(values: dict[str, float]) -> list[str]:
    """The names with the highest value, in their order: several if they tie."""
    highest = max(values.values())
    return [name for name, value in values.items() if value == highest]
