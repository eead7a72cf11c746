"""Files of predictions of a test set: for GLUE's server, or of an own task."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.files import write_text, written_beside
from utils.tasks import SCORE_RANGE, Task

HEADER = "index\tprediction"


def write_submission(path: Path, task: Task, predictions: np.ndarray) -> None:
    """Write the predictions for a test set, atomically: index and label, or score clipped to 0 to 5, on each line.

    Args:
        path: the file to write.
        task: one of GLUE's.
        predictions: (N,), class ids or scores, in file order.
    """
    if task.labels:
        column = [task.file_labels[int(prediction)] for prediction in predictions]
    else:
        column = [f"{score:.3f}" for score in np.clip(predictions, *SCORE_RANGE)]
    rows = "".join(f"{index}\t{value}\n" for index, value in enumerate(column))
    write_text(path, f"{HEADER}\n{rows}")


def write_predictions(path: Path, task: Task, logits: np.ndarray) -> None:
    """Write the predictions of an own task's test set, atomically, as a CSV file with a header.

    Of classes: the label, and the probability of each class in a column `probability of <class>`. Of regression: the
    score, in the range of the labels.

    Args:
        path: the file to write.
        task: an own task.
        logits: (N, C), in file order.
    """
    if task.labels:
        rows = [class_cells(task.labels[row.argmax()], row) for row in _softmax(logits)]
    else:
        rows = map(score_cells, task.from_model(np.clip(logits[:, 0].astype(float), *SCORE_RANGE)))
    with written_beside(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(prediction_header(task.labels))
        writer.writerows(rows)


def prediction_header(labels: Sequence[str]) -> list[str]:
    """The columns of a file of predictions; no labels are regression."""
    return ["label", *(f"probability of {label}" for label in labels)] if labels else ["score"]


def class_cells(label: str, probabilities: Iterable[float]) -> list[str]:
    """A row of a file of predictions: the label, and the probability of each class in the header's order."""
    return [label, *(f"{probability:.6f}" for probability in probabilities)]


def score_cells(score: float) -> list[str]:
    """A row of a file of predictions of a regression."""
    return [f"{score:.8g}"]


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of logits (N, C), in double precision."""
    powers = np.exp((logits - logits.max(1, keepdims=True)).astype(float))
    return powers / powers.sum(1, keepdims=True)
