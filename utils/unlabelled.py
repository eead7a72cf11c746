"""Text without labels: rows that only the teacher labels, from the files that --unlabelled names.

split = read_unlabelled(Path("reviews.txt"), TASKS["sst2"])
rows = epoch_rows(train.labels, per_epoch=4000, seed=776, epoch=0)
"""

import logging
import math
from collections.abc import Set
from pathlib import Path

import torch
from torch import Tensor

from utils.batches import NO_LABEL, Examples, lacks_label
from utils.errors import InputError
from utils.readers import Split, check_texts, warn_of_quotes
from utils.rows import SUFFIXES, column_names, is_quoted, listed, other_kind, read_columns, tsv_rows
from utils.tasks import SYNONYMS, Task

logger = logging.getLogger("stark")
PLAIN = ".txt"  # suffix of a file with a sentence a line


def check_name(name: str, task: Task) -> None:
    """Raise InputError if a file of this name cannot hold the task's rows: by its suffix, or a .txt for pairs."""
    suffix = Path(name).suffix.lower()
    if suffix not in (*SUFFIXES, PLAIN):
        raise InputError(f"{name}: expected a file whose name ends in {', '.join((*SUFFIXES, PLAIN))}")
    if suffix == PLAIN and len(task.text) > 1:
        raise InputError(
            f"{name}: a text a line, expected {', '.join(SUFFIXES)}: {task.title} compares two, {listed(task.text)}"
        )


def existing_file(name: str, task: Task) -> Path:
    """The path of a file of rows without labels, of which nothing is read yet.

    Raises:
        InputError: there is none, or what `check_name` raises.
    """
    check_name(name, task)
    if not Path(name).is_file():
        raise InputError(f"{name}: no such file")
    return Path(name)


def read_unlabelled(path: Path, task: Task) -> Split:
    """Read the rows of a file in its order: its columns with the task's texts, or a sentence a line of a `.txt`.

    Raises:
        InputError: what `read_columns` raises; the file has no rows, or an empty text.
    """
    texts = _lines(path, task) if path.suffix.lower() == PLAIN else _columns(path, task)
    if not texts:
        raise InputError(f"{path}: no rows, expected texts of {task.title}")
    first, *second = map(list, zip(*texts, strict=True))
    labels = [float(NO_LABEL) if task.labels else math.nan] * len(texts)
    return Split(first, second[0] if second else None, labels)


def _lines(path: Path, task: Task) -> list[list[str]]:
    """The text of each line of a .txt that is not blank."""
    texts = [[_stripped("\t".join(fields), task)] for _, fields in tsv_rows(path)]
    if texts and (kind := other_kind(texts[0])):
        raise InputError(f"{path}: {kind}, expected a text a line")
    return [text for text in texts if text[0].strip()]


def _columns(path: Path, task: Task) -> list[list[str]]:
    """The task's texts of each row of a file with columns."""
    texts = []
    quoted = []  # line of each field in a CSV writer's quotes, which .tsv files do not have
    synonyms = {} if task.is_own else SYNONYMS
    for line, fields in read_columns(path, task.text, synonyms, strip=False):
        row = [_stripped(field, task) for field in fields]
        check_texts(row, task.text, f"{path} line {line}")
        if path.suffix.lower() == ".tsv":
            quoted += [line for text in row if is_quoted(text)]
        texts.append(row)
    warn_of_quotes(path, quoted)
    left_out = [name for name in column_names(path) if synonyms.get(name, name) not in task.text]
    logger.info("%s: read %s; left out: %s", path, listed(task.text), listed(left_out) or "none")
    return texts


def _stripped(text: str, task: Task) -> str:
    """A text without the white space that the task's own files are read without, so that equal rows have equal tokens.

    Rows of GLUE keep no-break spaces, which some tokenizers see.
    """
    return text.strip() if task.is_own else text.strip(" \r\n")


def row_keys(examples: Examples) -> list[bytes]:
    """What the model reads of each example, tokens and where the second text begins: equal keys are equal rows."""
    tokens, starts = examples.tokens.cpu().numpy(), examples.offsets.tolist()
    second_starts = examples.segment_b_start.tolist()
    return [
        tokens[start : start + length].tobytes() + second.to_bytes(4)
        for start, length, second in zip(starts, examples.lengths.tolist(), second_starts, strict=True)
    ]


def drop_rows(examples: Examples, dropped: Set[bytes], path: str) -> Examples:
    """The examples without those whose key is one of `dropped`; the log counts these, and rows that occur again.

    Args:
        examples: on the CPU.
        dropped: keys of the rows of dev and test.
        path: the examples' file, for log and message.

    Raises:
        InputError: no row is left.
    """
    keys = row_keys(examples)
    kept = [row for row, key in enumerate(keys) if key not in dropped]
    if not kept:
        raise InputError(f"{path}: all {len(keys)} rows are rows of dev or test, expected others")
    repeated = len(kept) - len({keys[row] for row in kept})
    logger.info(
        "%s: %d of %d rows dropped, since they are rows of dev or test; %d of the others repeat an earlier one",
        path,
        len(keys) - len(kept),
        len(keys),
        repeated,
    )
    return examples.rows(torch.tensor(kept))


def epoch_rows(labels: Tensor, per_epoch: int | None, seed: int, epoch: int) -> Tensor:
    """Ids (n,) of the rows of an epoch: all that have a label, and the next ones of a shuffle of the others.

    Args:
        labels: class ids or scores (N,) of all rows, on the CPU.
        per_epoch: rows without a label that an epoch takes, at most; None takes all.
        seed: of the shuffle, which starts over when all have come.
        epoch: its number, from 0.
    """
    if per_epoch is None:
        return torch.arange(len(labels))
    lacking = lacks_label(labels)
    labelled, unlabelled = (mask.nonzero().flatten() for mask in (~lacking, lacking))
    order = unlabelled[torch.randperm(len(unlabelled), generator=torch.Generator().manual_seed(seed))]
    return torch.cat([labelled, order.roll(-epoch * per_epoch)[:per_epoch]])
