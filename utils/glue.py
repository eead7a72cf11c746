"""GLUE: one table of tasks, and a reader for their classic TSV files.

train = read_split("rte", "datasets", "train")
"""

import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import InputError
from utils.files import write_text

logger = logging.getLogger("stark")


class Task(NamedTuple):
    """A GLUE task: its labels, its metric, and where its files keep what."""

    title: str  # GLUE's name, also the name of the submission file
    labels: tuple[str, ...]  # names in the order of the class ids; () is regression, scores 0 to 5
    metric: str  # what selects the best checkpoint
    text: tuple[int, int | None]  # columns of the sentences in train and dev
    label: int = -1  # column of the label in train and dev
    test_text: tuple[int, int | None] = (1, 2)  # columns of the sentences in test
    values: tuple[str, ...] = ()  # the labels as the files write them, if not by name
    suffix: str = ""  # of dev and test files
    header: bool = True  # in train and dev; test always has one
    skip_short: bool = False  # the official files hold rows broken in two, which the official counts leave out


ENTAILMENT, NLI = ("not_entailment", "entailment"), ("contradiction", "neutral", "entailment")
BINARY = ("0", "1")
TASKS = {
    "rte": Task("RTE", ENTAILMENT, "acc", (1, 2)),
    "mrpc": Task("MRPC", ("not_equivalent", "equivalent"), "acc_and_f1", (3, 4), 0, (3, 4), BINARY),
    "stsb": Task("STS-B", (), "corr", (7, 8), -1, (7, 8)),
    "sst2": Task("SST-2", ("negative", "positive"), "acc", (0, None), 1, (1, None), BINARY),
    "qnli": Task("QNLI", ENTAILMENT, "acc", (1, 2)),
    "qqp": Task("QQP", ("not_duplicate", "duplicate"), "acc_and_f1", (3, 4), 5, (1, 2), BINARY, skip_short=True),
    "mnli": Task("MNLI-m", NLI, "acc", (8, 9), -1, (8, 9), suffix="_matched"),
    "mnlimm": Task("MNLI-mm", NLI, "acc", (8, 9), -1, (8, 9), suffix="_mismatched"),
    "cola": Task(
        "CoLA", ("unacceptable", "acceptable"), "matthews_corrcoef", (3, None), 1, (1, None), BINARY, header=False
    ),
    "wnli": Task("WNLI", ENTAILMENT, "acc", (1, 2), values=BINARY),
}
COLA_COLUMNS = 4  # of train and dev, which have no header to count


class Split(NamedTuple):
    """The columns of a file: N sentences or pairs, and their labels."""

    first: list[str]
    second: list[str] | None  # None for single sentences
    labels: list[float]  # class ids, or scores; zeros in test files, which have none


def task_folder(task_name: str, data_dir: str) -> Path:
    """The task's folder of TSV files; mnlimm falls back on mnli's.

    Raises:
        InputError: there is none.
    """
    folder = Path(data_dir, task_name)
    if task_name == "mnlimm" and not folder.is_dir():
        folder = Path(data_dir, "mnli")
    if not folder.is_dir():
        raise InputError(
            f"{Path(data_dir, task_name)}: no such folder, expected the task's TSV files "
            f"(bash scripts/download_glue.sh {task_name}, or --data_dir)"
        )
    return folder


def split_path(task_name: str, data_dir: str, split: str) -> Path:
    """The file of "train", "dev" or "test".

    Raises:
        InputError: folder or file is missing.
    """
    folder, suffix = task_folder(task_name, data_dir), "" if split == "train" else TASKS[task_name].suffix
    path = folder / f"{split}{suffix}.tsv"
    if not path.is_file():
        raise InputError(f"{path}: no such file, found {', '.join(sorted(os.listdir(folder))) or 'an empty folder'}")
    return path


def read_split(task_name: str, data_dir: str, split: str, max_examples: int | None = None) -> Split:
    """Read train, dev or test of a task, every row of it, in file order.

    Args:
        task_name: a key of TASKS.
        data_dir: the folder that holds the tasks' folders.
        split: "train", "dev" or "test".
        max_examples: the first so many rows only.

    Raises:
        InputError: file missing or empty, not UTF-8, a row with columns missing or too many, an unknown label, a score
            that is not a number from 0 to 5; with file and line.
    """
    task = TASKS[task_name]
    path, test = split_path(task_name, data_dir, split), split == "test"
    columns = task.test_text if test else task.text
    first, second, labels, skipped = [], [], [], 0
    for line, row, width in _rows(path, header=test or task.header):
        if max_examples is not None and len(first) >= max_examples:
            break
        if len(row) < width and task.skip_short and not test:
            skipped += 1
            continue
        if len(row) != width:
            raise InputError(f"{path} line {line}: {len(row)} columns, expected {width}")
        first.append(row[columns[0]])
        if columns[1] is not None:
            second.append(row[columns[1]])
        labels.append(0.0 if test else _label(row[task.label], task, path, line))
    if not first:
        raise InputError(f"{path}: no rows, expected examples of {task.title}")
    if skipped:
        logger.warning("%s: %d rows with missing columns left out", path, skipped)
    return Split(first, second if columns[1] is not None else None, labels)


def write_submission(path: Path, task: Task, predictions: np.ndarray) -> None:
    """GLUE's file of predictions for the test set: index and label by name, or score clipped to 0..5.

    Args:
        path: the file; complete or not at all.
        task: a value of TASKS.
        predictions: (N,), class ids or scores, in file order.
    """
    if task.labels:
        values = task.values or task.labels
        column = [values[int(prediction)] for prediction in predictions]
    else:
        column = [f"{score:.3f}" for score in np.clip(predictions, 0, 5)]
    rows = "".join(f"{index}\t{value}\n" for index, value in enumerate(column))
    write_text(path, f"index\tprediction\n{rows}")


def _rows(path: Path, header: bool) -> Iterator[tuple[int, list[str], int]]:
    """Line number, fields and expected number of fields of each row.

    Tabs separate and nothing quotes or escapes: a stray " must not swallow rows. Lines end at a line feed only, since
    the texts hold other characters that Python takes for line ends; fields lose the blanks around them, but a line
    is never stripped, or an empty last field would be lost.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            width = COLA_COLUMNS if not header else None
            for number, line in enumerate(file, start=1):
                row = [field.strip(" \r\n") for field in line.split("\t")]
                if row == [""]:
                    continue
                if width is None:
                    width = len(row)
                    continue
                yield number, row, width
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start} of a block)") from None


def _label(field: str, task: Task, path: Path, line: int) -> float:
    """Class id, or score."""
    if task.labels:
        values = task.values or task.labels
        if field not in values:
            raise InputError(f"{path} line {line}: label {field!r}, expected one of {', '.join(values)}")
        return values.index(field)
    try:
        score = float(field)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 5:
        raise InputError(f"{path} line {line}: score {field!r}, expected a number from 0 to 5")
    return score
