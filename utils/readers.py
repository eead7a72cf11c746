"""Sentences and labels of a task's TSV files, whose columns are found by name.

train = read_split("rte", "datasets", "train")
"""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError
from utils.tasks import HEADERS, SCORE_RANGE, SPLITS, SYNONYMS, TASKS, Task, split_path

logger = logging.getLogger("stark")
OTHER_KINDS = {  # what stands in the place of a file that was never fetched, by its first line
    "a git-lfs pointer, to be fetched with git lfs pull": re.compile(r"version https://git-lfs\.github\.com/spec/"),
    "an HTML page": re.compile(r"<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE),
}
LONGEST_FIELD, MOST_FIELDS = 40, 20  # of what a message repeats of a file


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


def _columns(path: Path, task_name: str, split: str, head: tuple[int, list[str]]) -> Columns:
    """Where a file keeps what, by the names in its first row; only CoLA's own files without a header go by position.

    Raises:
        InputError: a column that the task needs is not there by name, or twice.
    """
    task, (line, row) = TASKS[task_name], head
    official = HEADERS[task_name][SPLITS.index(split)].split(", ")
    needed = task.text if split == "test" else (*task.text, "label")
    header = task.header or split == "test"
    if found := find_columns(row, needed, SYNONYMS):
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
    by_name = ", ".join(name for name in official if SYNONYMS.get(name, name) in needed)
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
        if field in task.file_labels:
            return task.file_labels.index(field)
        # sources number the names in different orders, and a turned label would be learnt without a word
        number = not task.values and field.lstrip("-").isdigit()
        reason = " by name: sources differ in which number is which label" if number else ""
        raise InputError(
            f"{path} line {line}: label {shown(field)}, expected one of {', '.join(task.file_labels)}{reason}"
        )
    try:
        score = float(field)
    except ValueError:
        score = math.nan
    lowest, highest = SCORE_RANGE
    if not lowest <= score <= highest:
        raise InputError(f"{path} line {line}: score {shown(field)}, expected a number from {lowest} to {highest}")
    return score


def tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank, the header included.

    Tabs separate and nothing quotes or escapes: a stray " must not swallow rows. Lines end at a line feed only, since
    the texts hold other characters that Python takes for line ends; fields lose the blanks around them, but a line
    is never stripped, or an empty last field would be lost.

    Raises:
        InputError: not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                row = [field.strip(" \r\n") for field in line.split("\t")]
                if row != [""]:
                    yield number, row
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start} of a block)") from None


def find_columns(
    header: Sequence[str], names: Sequence[str], synonyms: Mapping[str, str] | None = None
) -> list[int] | None:
    """The positions of these columns, or None if not each is there, and once.

    Args:
        header: the names that a file gives its columns, in its order.
        names: the columns to find.
        synonyms: other names -> the names that are looked for.
    """
    known = [(synonyms or {}).get(name, name) for name in header]
    return [known.index(name) for name in names] if all(known.count(name) == 1 for name in names) else None


def other_kind(first_row: Sequence[str]) -> str | None:
    """What a file is that holds no table at all, by its first row; None if it may be one."""
    return next((kind for kind, pattern in OTHER_KINDS.items() if pattern.match(first_row[0])), None)


def is_quoted(field: str) -> bool:
    """Has a CSV writer put this field in quotes, and doubled those inside?"""
    inside = field[1:-1]
    return field[:1] == field[-1:] == '"' and '""' in inside and '"' not in inside.replace('""', "")


def shown(field: str) -> str:
    """A field in quotes for a message, at most its first 40 characters."""
    return repr(field if len(field) <= LONGEST_FIELD else f"{field[:LONGEST_FIELD]}...")


def listed(fields: Sequence[str]) -> str:
    """Fields in quotes for a message, at most the first 20."""
    return ", ".join([*map(shown, fields[:MOST_FIELDS]), *["..."] * (len(fields) > MOST_FIELDS)])
