"""What a trained model predicts for the rows that its result is of, kept in its checkpoint's folder.

A NumPy file of named columns, `label` and `prediction`, a line for each row in file order: class ids, or scores on the
scale of the model. All metrics of a task follow from it, also of resampled rows and where weights and data are gone.
"""

from pathlib import Path

import numpy as np

from utils.errors import InputError

PREDICTIONS = "predictions.npy"
COLUMNS = ("label", "prediction")


def save_predictions(folder: Path, predictions: np.ndarray, labels: np.ndarray) -> None:
    """Write the file into a checkpoint's folder, with 4 bytes a row for classes, if there are few, and 8 for scores.

    Args:
        folder: of the checkpoint.
        predictions: (N,), class ids or scores.
        labels: (N,), the same.
    """
    classes = np.int16 if max(labels.max(), predictions.max()) <= np.iinfo(np.int16).max else np.int32
    kind = np.float32 if labels.dtype.kind == "f" else classes
    columns = np.empty(len(labels), [(name, kind) for name in COLUMNS])
    columns["label"] = labels
    columns["prediction"] = predictions
    np.save(folder / PREDICTIONS, columns, allow_pickle=False)


def read_predictions(folder: Path) -> np.ndarray | None:
    """The columns of a checkpoint's file, (N,) with the fields of COLUMNS; None of one without, as earlier ones are.

    Raises:
        InputError: the file cannot be read, or has other columns.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        return None
    try:
        columns = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a NumPy file of predictions: {error}") from error
    if columns.dtype.names != COLUMNS:
        raise InputError(f"{path}: columns {columns.dtype.names}, expected {COLUMNS}")
    return columns
