"""GLUE: one table of tasks, and a reader for their classic TSV files.

train = read_split("rte", "datasets", "train")
"""

import logging
import math
import os
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import InputError
from utils.files import write_text
from utils.readers import find_columns, is_quoted, listed, other_kind, shown, tsv_rows

logger = logging.getLogger("stark")


class Sizes(NamedTuple):
    """How large a training is; the fields are the names of the flags whose defaults they are."""

    per_device_train_batch_size: int = 16  # examples
    learning_rate: float = 3e-5  # peak
    num_train_epochs: int = 10


class Task(NamedTuple):
    """A GLUE task: its labels, its metric, and what its files hold."""

    title: str  # GLUE's name, also the name of the submission file
    labels: tuple[str, ...]  # names in the order of the class ids; () is regression, scores 0 to 5
    metric: str  # what selects the best checkpoint
    text: tuple[str, ...]  # columns of the sentence, or of the first and the second
    values: tuple[str, ...] = ()  # the labels as the files write them, if not by name
    suffix: str = ""  # of dev and test files
    header: bool = True  # in train and dev; test always has one
    skip_short: bool = False  # the official files hold rows broken in two, which the official counts leave out
    rows: tuple[int, ...] = ()  # of GLUE's train, dev and test files, as their authors count them
    sizes: Sizes = Sizes()  # the paper's for RTE


ENTAILMENT, NLI = ("not_entailment", "entailment"), ("contradiction", "neutral", "entailment")
EQUIVALENT, DUPLICATE = ("not_equivalent", "equivalent"), ("not_duplicate", "duplicate")
ACCEPTABLE, SENTIMENT = ("unacceptable", "acceptable"), ("negative", "positive")
BINARY = ("0", "1")
PAIR = ("sentence1", "sentence2")
QUESTIONS = ("question1", "question2")
MEDIUM, LARGE = Sizes(32, num_train_epochs=5), Sizes(32, num_train_epochs=3)
TASKS = {
    "rte": Task("RTE", ENTAILMENT, "acc", PAIR, rows=(2490, 277, 3000)),
    "mrpc": Task("MRPC", EQUIVALENT, "acc_and_f1", PAIR, BINARY, rows=(3668, 408, 1725)),
    "stsb": Task("STS-B", (), "corr", PAIR, rows=(5749, 1500, 1379)),
    "sst2": Task("SST-2", SENTIMENT, "acc", ("sentence",), BINARY, rows=(67349, 872, 1821), sizes=MEDIUM),
    "qnli": Task("QNLI", ENTAILMENT, "acc", ("question", "sentence"), rows=(104743, 5463, 5463), sizes=MEDIUM),
    "qqp": Task(
        "QQP", DUPLICATE, "acc_and_f1", QUESTIONS, BINARY, skip_short=True, rows=(363846, 40430, 390965), sizes=LARGE
    ),
    "mnli": Task("MNLI-m", NLI, "acc", PAIR, suffix="_matched", rows=(392702, 9815, 9796), sizes=LARGE),
    "mnlimm": Task("MNLI-mm", NLI, "acc", PAIR, suffix="_mismatched", rows=(392702, 9832, 9847), sizes=LARGE),
    "cola": Task("CoLA", ACCEPTABLE, "matthews_corrcoef", ("sentence",), BINARY, header=False, rows=(8551, 1043, 1063)),
    "wnli": Task("WNLI", ENTAILMENT, "acc", PAIR, BINARY, rows=(635, 71, 146)),
}
MEANING = {  # what a column holds, where a file calls it by another name than Task.text and "label"
    "#1 String": "sentence1",
    "#2 String": "sentence2",
    "Quality": "label",
    "gold_label": "label",
    "is_duplicate": "label",
    "score": "label",
}
RTE_COLUMNS = "index, sentence1, sentence2"
MRPC_COLUMNS = "#1 ID, #2 ID, #1 String, #2 String"
STSB_COLUMNS = "index, genre, filename, year, old_index, source1, source2, sentence1, sentence2"
PARSES = "sentence1_binary_parse, sentence2_binary_parse, sentence1_parse, sentence2_parse"
MNLI_COLUMNS = f"index, promptID, pairID, genre, {PARSES}, sentence1, sentence2"
ANNOTATORS = "label1, label2, label3, label4, label5"
MNLI_HEADERS = (f"{MNLI_COLUMNS}, label1, gold_label", f"{MNLI_COLUMNS}, {ANNOTATORS}, gold_label", MNLI_COLUMNS)
SPLITS = ("train", "dev", "test")
HEADERS = {  # of GLUE's own files of these splits; CoLA's train and dev have these columns, but no header
    "rte": (f"{RTE_COLUMNS}, label", f"{RTE_COLUMNS}, label", RTE_COLUMNS),
    "mrpc": (f"Quality, {MRPC_COLUMNS}", f"Quality, {MRPC_COLUMNS}", f"index, {MRPC_COLUMNS}"),
    "stsb": (f"{STSB_COLUMNS}, score", f"{STSB_COLUMNS}, score", STSB_COLUMNS),
    "sst2": ("sentence, label", "sentence, label", "index, sentence"),
    "qnli": (*["index, question, sentence, label"] * 2, "index, question, sentence"),
    "qqp": (*["id, qid1, qid2, question1, question2, is_duplicate"] * 2, "id, question1, question2"),
    "mnli": MNLI_HEADERS,
    "mnlimm": MNLI_HEADERS,
    "cola": (*["source, label, mark, sentence"] * 2, "index, sentence"),
    "wnli": (f"{RTE_COLUMNS}, label", f"{RTE_COLUMNS}, label", RTE_COLUMNS),
}


class Columns(NamedTuple):
    """Where a file keeps what."""

    text: list[int]
    label: int | None  # None in test files
    width: int  # columns of each row
    mark: int | None = None  # column of the linguists' mark, in CoLA's files without a header
    first_row: bool = False  # is the first line a row, and no header?
    index: int | None = None  # column that numbers a test file's rows, if it has one


class Split(NamedTuple):
    """The columns of a file: N sentences or pairs, and their labels."""

    first: list[str]
    second: list[str] | None  # None for single sentences
    labels: list[float]  # class ids, or scores; zeros in test files, which have none


def task_folder(task_name: str, data_dir: str) -> Path:
    """The task's folder of TSV files, or the one that GLUE's zip unpacks to; mnlimm falls back on mnli's.

    Raises:
        InputError: there is none.
    """
    task = TASKS[task_name]
    names = (task_name, "mnli", "MNLI") if task.suffix else (task_name, task.title)
    folder = next((Path(data_dir, name) for name in names if Path(data_dir, name).is_dir()), None)
    if folder is None:
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
        InputError: file missing or empty, not UTF-8, without the task's columns, a row with columns missing or too
            many, an unknown label, a score that is not a number from 0 to 5; with file and line.
    """
    task, path = TASKS[task_name], split_path(task_name, data_dir, split)
    rows = tsv_rows(path)
    head = next(rows, None)
    if head is None:
        raise InputError(f"{path}: no rows, expected examples of {task.title}")
    columns = _columns(path, task_name, split, head)
    texts, labels, skipped, quoted = [], [], 0, []
    for line, row in chain([head] * columns.first_row, rows):
        if max_examples is not None and len(texts) >= max_examples:
            break
        if len(row) < columns.width and task.skip_short and split != "test":
            skipped += 1
            continue
        _check_row(row, columns, len(texts), f"{path} line {line}")
        texts.append([row[column] for column in columns.text])
        labels.append(0.0 if columns.label is None else _label(row[columns.label], task, path, line))
        quoted += [line] * sum(map(is_quoted, texts[-1]))
    if not texts:
        raise InputError(f"{path}: no rows, expected examples of {task.title}")
    if skipped:
        logger.warning("%s: %d rows with missing columns left out", path, skipped)
    if quoted:
        logger.warning(
            "%s: %d fields with a CSV writer's quotes, the first in line %d, read as they stand: write it unquoted",
            path,
            len(quoted),
            quoted[0],
        )
    first, *second = map(list, zip(*texts, strict=True))
    return Split(first, second[0] if second else None, labels)


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


def _columns(path: Path, task_name: str, split: str, head: tuple[int, list[str]]) -> Columns:
    """Where a file keeps what, by the names in its first row; only CoLA's own files without a header go by position.

    Raises:
        InputError: a column that the task needs is not there by name, or twice.
    """
    task, (line, row) = TASKS[task_name], head
    official = HEADERS[task_name][SPLITS.index(split)].split(", ")
    needed = task.text if split == "test" else (*task.text, "label")
    header = task.header or split == "test"
    if found := find_columns(row, needed, MEANING):
        if row != official:
            used = listed([row[column] for column in found])
            others = listed([name for column, name in enumerate(row) if column not in found])
            logger.warning("%s: not GLUE's columns, taken by name: %s; left out: %s", path, used, others or "none")
        if split == "test":
            return Columns(found, None, len(row), index=row.index(official[0]) if official[0] in row else None)
        return Columns(found[: len(task.text)], found[-1], len(row))
    if not header and len(row) == len(official) and row[1] in task.values and _is_mark(row[2]):
        return Columns([3], 1, len(row), mark=2, first_row=True)
    if kind := other_kind(row):
        raise InputError(f"{path}: {kind}, expected a file with the columns {listed(official)}")
    by_name = ", ".join(name for name in official if MEANING.get(name, name) in needed)
    way = f"in any order, but {by_name} by name, once each"
    if not header:
        way = f"no header, label 0 or 1, mark * or none; or {by_name} by name, once each"
    raise InputError(f"{path} line {line}: columns {listed(row)}, expected {listed(official)} ({way})")


def _check_row(row: list[str], columns: Columns, index: int, place: str) -> None:
    """Raise InputError if a row has other columns than the header, or stands at another place than it says."""
    if len(row) != columns.width:
        raise InputError(f"{place}: {len(row)} columns, expected {columns.width}")
    if columns.mark is not None and not _is_mark(row[columns.mark]):
        raise InputError(f"{place}: mark {shown(row[columns.mark])}, expected * or nothing")
    if columns.index is not None and row[columns.index] != str(index):
        raise InputError(
            f"{place}: index {shown(row[columns.index])}, expected {index}: predictions are submitted in this order"
        )


def _is_mark(field: str) -> bool:
    """Is it what CoLA's sources put before a sentence: nothing, *, ?, ??, *? or ?*?"""
    return not field.strip("*?")


def _label(field: str, task: Task, path: Path, line: int) -> float:
    """Class id, or score."""
    if task.labels:
        values = task.values or task.labels
        if field in values:
            return values.index(field)
        # sources number the names in different orders, and a turned label would be learnt without a word
        number = not task.values and field.lstrip("-").isdigit()
        reason = " by name: sources differ in which number is which label" if number else ""
        raise InputError(f"{path} line {line}: label {shown(field)}, expected one of {', '.join(values)}{reason}")
    try:
        score = float(field)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 5:
        raise InputError(f"{path} line {line}: score {shown(field)}, expected a number from 0 to 5")
    return score
