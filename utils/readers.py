"""Read sentences and labels from a task's files, whose columns are found by name.

train = read_split("rte", "datasets", "train")
"""

import logging
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError
from utils.rows import find_columns, is_quoted, listed, number_of, other_kind, read_columns, shown, tsv_rows
from utils.tasks import (
    DIAGNOSTIC,
    DIAGNOSTIC_ROWS,
    LABELLED,
    SYNONYMS,
    TASKS,
    Task,
    find_task,
    official_columns,
    split_path,
)

logger = logging.getLogger("stark")
MANY = 100  # rows, of which some of STS-B's have scores above 1


class Columns(NamedTuple):
    """Positions of a file's columns, from 0."""

    text: list[int]
    label: int | None  # None in test files
    width: int  # number of columns
    mark: int | None = None  # the source's acceptability mark, in CoLA's files without a header
    first_row: bool = False  # whether the first line is a row instead of a header
    index: int | None = None  # row numbers of a test file, if it has them


class Split(NamedTuple):
    """N sentences or pairs of sentences, and their labels."""

    first: list[str]
    second: list[str] | None  # None for single sentences
    labels: list[float]  # class ids or scores; zeros for a test file


def read_split(task_name: str, data_dir: str, split: str, max_examples: int | None = None) -> Split:
    """Read a split of a task in file order.

    Args:
        task_name: of GLUE's or an own task.
        data_dir: the folder that holds the tasks' folders.
        split: "train", "dev", "test" or DIAGNOSTIC.
        max_examples: read only the first rows, at most this many.

    Raises:
        InputError: the file is missing, empty or not UTF-8, lacks one of the task's columns, or has a row with columns
            missing or too many, an unknown label, or a score outside the task's range; the message names file and
            line. Of an own task, also what `read_own` raises.
    """
    task = find_task(task_name, data_dir)
    path = split_path(task_name, data_dir, split)
    if task.is_own:
        return read_own(path, task, split, max_examples)

    # the first line says which column is which; it is an example itself in CoLA's files without a header
    rows = tsv_rows(path)
    head = next(rows, None)
    if head is None:
        raise InputError(f"{path}: no rows, expected examples of {task.title}")
    columns = _columns(path, task_name, split, head)
    if columns.first_row:
        rows = chain([head], rows)

    texts: list[list[str]] = []
    labels: list[float] = []
    quoted: list[int] = []  # line of each field in a CSV writer's quotes
    blank: list[int] = []  # line of each row with an empty text
    skipped = 0
    for line, row in rows:
        if max_examples is not None and len(texts) >= max_examples:
            break
        if len(row) < columns.width and task.skip_short and split in LABELLED:
            skipped += 1
            continue
        _check_row(row, columns, len(texts), f"{path} line {line}")
        texts.append([row[column] for column in columns.text])
        labels.append(0.0 if columns.label is None else _label(row[columns.label], task, path, line))
        quoted += [line for text in texts[-1] if is_quoted(text)]
        blank += [] if all(texts[-1]) else [line]

    if split == DIAGNOSTIC and max_examples is None and len(texts) != DIAGNOSTIC_ROWS:
        raise InputError(f"{path}: {len(texts)} rows, expected the {DIAGNOSTIC_ROWS} of GLUE's diagnostic set")
    if skipped and texts:
        logger.warning("%s: %d rows with missing columns left out", path, skipped)
    if blank:
        logger.warning("%s: %d rows with an empty text, the first in line %d", path, len(blank), blank[0])
    _warn_of_scale(path, task, labels)
    return _as_split(path, task, texts, labels, quoted)


def read_own(path: Path, task: Task, split: str, max_examples: int | None = None) -> Split:
    """Read a .csv, .tsv or .jsonl file of an own task in file order.

    Args:
        path: the file.
        task: the own task.
        split: of "test" only the texts are read, since it may have no labels.
        max_examples: read only the first rows, at most this many.

    Raises:
        InputError: what `read_columns` raises; the file has no rows, or a row with an empty text, an unknown label, or
            a score outside the task's range.
    """
    columns = task.text if split == "test" else (*task.text, task.label_column)
    texts: list[list[str]] = []
    labels: list[float] = []
    quoted: list[int] = []  # line of each field of a .tsv in a CSV writer's quotes, which it should not have
    with_comma: list[tuple[int, str]] = []  # line and text of each field that a spreadsheet puts in quotes in a .tsv
    for line, row in islice(read_columns(path, columns), max_examples):
        texts.append(row[: len(task.text)])
        check_texts(texts[-1], task.text, f"{path} line {line}")
        labels.append(0.0 if split == "test" else _label(row[-1], task, path, line))
        if path.suffix.lower() == ".tsv":
            quoted += [line for text in texts[-1] if is_quoted(text)]
            with_comma += [(line, text) for text in texts[-1] if "," in text]
    if len(with_comma) > 1 and all(text[0] == text[-1] == '"' for _, text in with_comma):
        quoted = sorted([*quoted, *(line for line, text in with_comma if not is_quoted(text))])
    return _as_split(path, task, texts, labels, quoted)


def _as_split(path: Path, task: Task, texts: list[list[str]], labels: list[float], quoted: list[int]) -> Split:
    """The rows of a file; a warning for fields that may not be as their author meant them.

    Args:
        texts: N rows of one or two texts.
        labels: N class ids or scores.
        quoted: line of each field in a CSV writer's quotes.

    Raises:
        InputError: there are no rows.
    """
    if not texts:
        raise InputError(f"{path}: no rows, expected examples of {task.title}")
    warn_of_quotes(path, quoted)
    first, *second = map(list, zip(*texts, strict=True))
    return Split(first, second[0] if second else None, labels)


def check_texts(texts: Sequence[str], columns: Sequence[str], location: str) -> None:
    """Check that no text of a row is empty.

    Args:
        texts: of the row.
        columns: their names.
        location: file and line, for the message.

    Raises:
        InputError: one is empty, or nothing but white space.
    """
    for name, text in zip(columns, texts, strict=True):
        if not text.strip():
            raise InputError(f"{location}: {name} is empty, expected a text")


def warn_of_quotes(path: Path, quoted: Sequence[int]) -> None:
    """A warning that fields of a .tsv file are in a CSV writer's quotes; `quoted` has the line of each of them."""
    if quoted:
        logger.warning(
            "%s: %d fields with a CSV writer's quotes, the first in line %d, read as they stand: write it unquoted",
            path,
            len(quoted),
            quoted[0],
        )


def _warn_of_scale(path: Path, task: Task, labels: Sequence[float]) -> None:
    """A warning that scores look as if they were on another scale than GLUE's: copies of STS-B have 0 to 1."""
    if not task.labels and len(labels) >= MANY and 0 < max(labels) <= 1:
        logger.warning("%s: no score above 1, expected GLUE's from %g to %g", path, *task.score_range)


def _columns(path: Path, task_name: str, split: str, head: tuple[int, list[str]]) -> Columns:
    """The columns of a file by the names in its first row; only CoLA's files without a header are read by position.

    Args:
        head: line number and fields of the first row.

    Raises:
        InputError: a column that the task needs is missing, or occurs twice.
    """
    task = TASKS[task_name]
    line, row = head
    official = official_columns(task_name, split)
    needed = (*task.text, "label") if split in LABELLED else task.text
    has_header = task.header or split not in LABELLED

    # by name, in any order; columns that the task does not need are ignored
    positions = find_columns(row, needed, SYNONYMS)
    if positions:
        if row != official:
            used = listed([row[column] for column in positions])
            others = listed([name for column, name in enumerate(row) if column not in positions])
            logger.warning("%s: not GLUE's columns, taken by name: %s; left out: %s", path, used, others or "none")
        if split not in LABELLED:
            index = row.index(official[0]) if official[0] in row else None
            return Columns(positions, None, len(row), index=index)
        return Columns(positions[: len(task.text)], positions[-1], len(row))

    # CoLA's official train and dev files: source, label, mark, sentence
    if not has_header and len(row) == len(official) and row[1] in task.values and _is_mark(row[2]):
        return Columns([3], 1, len(row), mark=2, first_row=True)

    # not a file of this task
    kind = other_kind(row)
    if kind:
        raise InputError(f"{path}: {kind}, expected a file with the columns {listed(official)}")
    by_name = ", ".join(name for name in official if SYNONYMS.get(name, name) in needed)
    layout = f"in any order, but {by_name} by name, once each"
    if not has_header:
        layout = f"no header, label 0 or 1, mark * or none; or {by_name} by name, once each"
    raise InputError(f"{path} line {line}: columns {listed(row)}, expected {listed(official)} ({layout})")


def _check_row(row: list[str], columns: Columns, index: int, location: str) -> None:
    """Raise InputError if a row has another number of columns, an unknown mark, or another index than its position.

    Args:
        index: position of the row in the file, from 0.
        location: file and line, for the message.
    """
    if len(row) != columns.width:
        raise InputError(f"{location}: {len(row)} columns, expected {columns.width}")
    if columns.mark is not None and not _is_mark(row[columns.mark]):
        raise InputError(f"{location}: mark {shown(row[columns.mark])}, expected * or nothing")
    if columns.index is not None and row[columns.index] != str(index):
        raise InputError(
            f"{location}: index {shown(row[columns.index])}, expected {index}: predictions are submitted in this order"
        )


def _is_mark(field: str) -> bool:
    """Whether a field is an acceptability mark as CoLA's sources write it: empty, *, ?, ??, *? or ?*."""
    return not field.strip("*?")


def _label(field: str, task: Task, path: Path, line: int) -> float:
    """The class id in a label field, or the score on the model's scale.

    Raises:
        InputError: it is not one of the task's labels, or not a score of the task's range.
    """
    if task.labels:
        if field in task.file_labels:
            return task.file_labels.index(field)
        # sources number the classes in different orders, and swapped labels would be learnt without an error
        number = not task.is_own and not task.values and field.lstrip("-").isdigit()
        expected = listed(task.labels) if task.is_own else ", ".join(task.file_labels)
        reason = " by name: sources differ in which number is which label" if number else ""
        raise InputError(f"{path} line {line}: label {shown(field)}, expected one of {expected}{reason}")
    score = number_of(field)
    lowest, highest = task.score_range
    if not lowest <= score <= highest:
        raise InputError(f"{path} line {line}: score {shown(field)}, expected a number from {lowest:g} to {highest:g}")
    return task.to_model(score)
