"""Submission files for GLUE's server."""

from pathlib import Path

import numpy as np

from utils.files import write_text
from utils.tasks import SCORE_RANGE, Task

HEADER = "index\tprediction"


def write_submission(path: Path, task: Task, predictions: np.ndarray) -> None:
    """Write the predictions for a test set, atomically: index and label, or score clipped to 0 to 5, on each line.

    Args:
        path: the file to write.
        task: a value of TASKS.
        predictions: (N,), class ids or scores, in file order.
    """
    if task.labels:
        column = [task.file_labels[int(prediction)] for prediction in predictions]
    else:
        column = [f"{score:.3f}" for score in np.clip(predictions, *SCORE_RANGE)]
    rows = "".join(f"{index}\t{value}\n" for index, value in enumerate(column))
    write_text(path, f"{HEADER}\n{rows}")
