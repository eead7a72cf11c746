"""Splits a dev set off a training set, seeded and stratified, for scripts/add_task.py."""

import csv
import random
from collections import Counter, defaultdict
from pathlib import Path

from utils.errors import InputError
from utils.readers import Split
from utils.rows import read_columns
from utils.tasks import Task


def dev_rows(train: Split, task: Task, percent: int, seed: int, path: Path) -> list[int]:
    """The rows of a training set that become dev, ascending; no row that stays is equal to one of them.

    Of each class that many percent go, at least one row, and at least one stays; of scores, one row of each so many
    neighbours in their order.

    Args:
        path: of the file, for the message.

    Raises:
        InputError: there are no rows whose texts occur once, from which they are drawn.
    """
    rng = random.Random(seed)
    texts = list(zip(train.first, train.second or train.first, strict=True))
    occurrences = Counter(texts)
    candidates = [index for index, text in enumerate(texts) if occurrences[text] == 1]
    if not candidates:
        raise InputError(f"{path}: every text occurs more than once; expected some that occur once, or --dev")
    rng.shuffle(candidates)
    if not task.labels:
        candidates.sort(key=lambda index: train.labels[index])
        count = min(max(1, round(percent / 100 * len(texts))), len(candidates), len(texts) - 1)
        ends = [number * len(candidates) // count for number in range(count + 1)]
        return sorted(rng.choice(candidates[start:end]) for start, end in zip(ends, ends[1:], strict=False))

    sizes = Counter(train.labels)
    by_class: dict[float, list[int]] = defaultdict(list)
    for index in candidates:
        by_class[train.labels[index]].append(index)
    chosen: list[int] = []
    for label, found in by_class.items():
        chosen += found[: min(max(1, round(percent / 100 * sizes[label])), sizes[label] - 1)]
    return sorted(chosen)


def rows_of(split: Split, indices: list[int]) -> Split:
    """These rows of a split."""
    first, second, labels = ([column[i] for i in indices] if column else None for column in split)
    return Split(first, second, labels)


def write_parts(folder: Path, task: Task, source: Path, dev: list[int]) -> None:
    """Write train.csv and dev.csv with the columns of the task, labels as they stand in the source.

    Args:
        folder: where to.
        task: an own task.
        source: the file that is split.
        dev: its rows that go to dev, from 0.
    """
    columns = [*task.text, task.label_column]
    to_dev = set(dev)
    with (
        open(folder / "train.csv", "w", encoding="utf-8", newline="") as train_file,
        open(folder / "dev.csv", "w", encoding="utf-8", newline="") as dev_file,
    ):
        # every field in quotes, since the module leaves a carriage return without
        writers = [csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n") for file in (train_file, dev_file)]
        for writer in writers:
            writer.writerow(columns)
        for index, (_, fields) in enumerate(read_columns(source, columns)):
            writers[index in to_dev].writerow(fields)
