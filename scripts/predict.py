"""Predict labels and probabilities, or scores, for the rows of a file or for lines on standard input.

    python scripts/predict.py --model_path outputs/rewind/layer_dropped/kd_4_mrpc_0.5/ckpt_30 --input pairs.csv
    python scripts/predict.py --model_path <checkpoint> --input reviews.jsonl --text_columns title body --output out.csv
    echo "a film to see twice" | python scripts/predict.py --model_path <checkpoint or export>

The input is .csv, .tsv or .jsonl, whose texts are found by the names of their columns, or one text a line: .txt, or
standard input, where a tab separates the two texts of a pair. All of it is read and checked before the first row is
predicted. The output is CSV, a line for each row: label and a probability for each class, or score.
"""

import argparse
import contextlib
import csv
import io
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stage import entry_point
from student import Prediction, Student, load_student, made_with
from utils import log
from utils.arguments import Parser
from utils.errors import InputError
from utils.files import lock, written_beside
from utils.flags import number
from utils.readers import check_texts
from utils.rows import OTHER_SEPARATORS, SUFFIXES, column_names, find_columns, listed, other_kind, read_columns
from utils.submission import class_cells, prediction_header, score_cells
from utils.tasks import SYNONYMS, TASKS

CHUNK = 16  # batches that are tokenised, sorted by length, predicted and written at once
Texts = Iterator[tuple[str, ...]]  # one or two for each row


def parse_args(argv=None):
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model_path", required=True, help="checkpoint with a classifier, name on the hub, or folder of export.py")
    add("--input", default="-", help=".csv, .tsv, .jsonl or .txt file (default -, lines on standard input)")
    text = "columns with the texts, one or two (default those of the checkpoint's task, else the only column)"
    add("--text_columns", nargs="+", metavar="COLUMN", help=text)
    add("--output", default="-", help="CSV file, replaced when it is complete (default -, standard output)")
    add("--batch_size", type=number(int, 1), default=32, help="examples per forward pass (default 32)")
    add("--use_cpu", action="store_true", help="do not use a GPU (default: use one if there is one)")
    args = parser.parse_args(argv)
    if args.text_columns and len(args.text_columns) > 2:
        parser.error(f"--text_columns: found {len(args.text_columns)}, expected one or two")
    return args


def check_output(args: argparse.Namespace) -> None:
    """Raise InputError if --output cannot be written, or is the input."""
    path = Path(args.output)
    if args.output == "-":
        if sys.stdout is None:
            raise InputError("standard output is closed; --output names a file")
        return
    if not path.parent.is_dir() or (path.exists() and not path.is_file()):
        raise InputError(f"--output {path}: expected a file in a folder that exists")
    if path.exists() and Path(args.input).exists() and path.samefile(args.input):
        raise InputError(f"--output {path}: the input, which it would replace")


class TaskColumns(NamedTuple):
    """The text columns of a checkpoint's task, and how a stage reads them."""

    names: tuple[str, ...] = ()  # () if nothing says them
    options: dict[str, Any] = {}  # of read_columns


def task_columns(settings: dict[str, Any]) -> TaskColumns:
    """The columns of the task that a checkpoint was trained for; `settings` are those of its args.json."""
    name, own = settings.get("task_name"), settings.get("task")
    if isinstance(own, dict):
        return TaskColumns(tuple(own["text_columns"]))
    if name not in TASKS:
        return TaskColumns()
    # GLUE's fields keep such white space as no-break spaces
    return TaskColumns(TASKS[name].text, {"synonyms": SYNONYMS, "strip": False})


def text_reader(args: argparse.Namespace, of_task: TaskColumns) -> Callable[[], Texts]:
    """How the texts of all rows are read: text_reader(...)(), any number of times.

    Raises:
        InputError: the input is missing or of another kind, or its columns are not known, or are more or fewer than
            the task's; and from reading, what read_columns raises, or that a text is empty.
    """
    path = Path(args.input)
    if args.input != "-" and path.suffix.lower() in SUFFIXES:
        if args.text_columns:
            if of_task.names and len(args.text_columns) != len(of_task.names):
                expected = f"{len(of_task.names)} as in the checkpoint's task: {listed(of_task.names)}"
                raise InputError(f"--text_columns: found {listed(args.text_columns)}, expected {expected}")
            return partial(_column_texts, path, args.text_columns)
        return _default_reader(path, of_task)
    if args.text_columns:
        raise InputError(f"--text_columns: for {', '.join(SUFFIXES)}, found lines of text ({_name(args)})")
    return partial(_line_texts, _lines(args), _name(args), len(of_task.names))


def _name(args: argparse.Namespace) -> str:
    """What messages call the input."""
    return "standard input" if args.input == "-" else args.input


def _default_reader(path: Path, of_task: TaskColumns) -> Callable[[], Texts]:
    """How the columns of the checkpoint's task are read, or the only one that there is."""
    found = column_names(path)
    if kind := other_kind(found):
        raise InputError(f"{path}: {kind}, expected texts")
    if of_task.names and find_columns(found, of_task.names, of_task.options.get("synonyms")):
        return partial(_column_texts, path, of_task.names, **of_task.options)
    # a header whose names are separated by something else looks like one column
    if len(found) == 1 and len(of_task.names) < 2 and not set(found[0]) & set(OTHER_SEPARATORS):
        return partial(_column_texts, path, found)
    expected = f", expected {listed(of_task.names)} as in the checkpoint's task" if of_task.names else ""
    raise InputError(f"{path}: columns {listed(found)}{expected}; --text_columns names those with the texts")


def _column_texts(path: Path, columns: Sequence[str], **options: Any) -> Texts:
    """The texts in these columns, row after row; `options` as read_columns takes them."""
    for line, fields in read_columns(path, columns, **options):
        check_texts(fields, columns, f"{path} line {line}")
        yield tuple(fields)


def _lines(args: argparse.Namespace) -> BinaryIO:
    """A file of lines that can be read twice; of standard input, a copy on the disk."""
    if args.input == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed; --input names a file")
        copied = tempfile.TemporaryFile()  # noqa: SIM115, open until this process ends
        shutil.copyfileobj(sys.stdin.buffer, copied)
        return copied
    path = Path(args.input)
    if path.suffix.lower() != ".txt":
        raise InputError(f"{path}: expected a file whose name ends in {', '.join(SUFFIXES)} or .txt")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return open(path, "rb")


def _line_texts(file: BinaryIO, name: str, expected: int) -> Texts:
    """The texts of each line.

    Args:
        name: of the file, for messages.
        expected: how many texts a line has; 0 if the first line says it.
    """
    file.seek(0)
    for line_number, line in enumerate(file, start=1):
        location = f"{name} line {line_number}"
        try:
            text = line.decode("utf-8-sig" if line_number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{location}: not UTF-8 text ({error.reason})") from None
        if line_number == 1 and (kind := other_kind([text])):
            raise InputError(f"{location}: {kind}, expected a text a line")
        texts = tuple(part.strip() for part in text.split("\t"))
        expected = expected or min(len(texts), 2)
        if len(texts) != expected:
            raise InputError(f"{location}: {len(texts)} texts separated by tabs, expected {expected}")
        if not all(texts):
            raise InputError(f"{location}: empty, expected a text")
        yield texts


@contextlib.contextmanager
def destination(output: str) -> Iterator[TextIO]:
    """A context that yields the stream to write to; a file is replaced at its end."""
    if output == "-":
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # names of classes may be of any alphabet
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(output)
    lock(path.with_name(f".{path.name}.lock"))
    with written_beside(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        yield file


def predict(student: Student, rows: Texts, stream: TextIO) -> int:
    """Write the predictions of all rows; how many rows were cut to the student's length, or just as long."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(prediction_header(student.labels))
    full_length = 0
    while chunk := list(itertools.islice(rows, CHUNK * student.batch_size)):
        examples = student.tokenise(chunk)
        full_length += int((examples.lengths == student.max_length).sum())
        writer.writerows(map(_cells, student.predictions(student.logits(examples))))
    return full_length


def _cells(prediction: Prediction | float) -> list[str]:
    """A row of the output."""
    if isinstance(prediction, float):
        return score_cells(prediction)
    return class_cells(prediction.label, prediction.probabilities.values())


@entry_point
def main(argv=None):
    args = parse_args(argv)
    check_output(args)
    student = load_student(args.model_path, "cpu" if args.use_cpu else None, args.batch_size)

    # all rows are read once before anything is written
    read = text_reader(args, task_columns(made_with(args.model_path)))
    total = sum(1 for _ in read())
    if not total:
        raise InputError(f"{_name(args)}: no rows, expected texts")

    # and a second time, some batches at once, so that memory does not grow with the file
    rows = log.progress(read(), total=total, desc="predicting", unit="row")
    try:
        with destination(args.output) as stream:
            full_length = predict(student, iter(rows), stream)
    except BrokenPipeError:  # whoever read standard output has seen enough
        return
    log.write_line(f"{total} rows, {full_length} of full length ({student.max_length} tokens)", sys.stderr)


if __name__ == "__main__":
    main()
