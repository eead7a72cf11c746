"""Add a task of one's own: check its files, put them into <data_dir>/<name> with a task.json, and say what they hold.

    python scripts/add_task.py reviews --train train.csv --dev dev.csv --text_columns title body --label_column stars
    python scripts/add_task.py quality --train rated.jsonl --text_columns text --label_column percent --regression

Files are .csv, .tsv (without quoting) or .jsonl, in UTF-8, and name their columns; one or two of these are the texts.
Labels are names as they are written, sorted as numbers if all are numbers, else by the alphabet; with --regression
they are numbers of any range. Without --dev, a tenth of train's rows become dev, drawn with --seed: classes keep their
shares, and no row is in both; they are written as .csv with the task's columns alone. A test file needs no labels.
With --model_path lengths are in that model's tokens, else in words. Afterwards every script takes --task_name <name>,
and --do_test writes <name>.csv.
"""

import argparse
import json
import math
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from scripts.split_dev import dev_rows, rows_of, write_parts
from utils import log
from utils.arguments import Parser
from utils.entry import entry_point
from utils.errors import InputError
from utils.files import lock, written_beside
from utils.flags import MAX_LENGTH, number
from utils.metrics import METRICS, OF_TWO_CLASSES, metric_fault
from utils.readers import Split, read_own
from utils.rows import SUFFIXES, listed, number_of, read_columns, shown
from utils.tables import table
from utils.tasks import SPLITS, TASK_FILE, Task, is_own_name, own_task

LONGEST_TABLE = 50  # classes that the report shows
MISSING = {"nan", "null", "<na>", "n/a", "#n/a"}  # what programs write where there is no label
UNCUT = 10**6  # tokens; more than any text has


def parse_args(argv=None):
    parser = Parser(__doc__)
    add = parser.add_argument
    add("name", help="name of the task, in letters, digits, _ and -")
    add("--train", required=True, help="file of the training set")
    add("--dev", help="file of the dev set (default: split off train, see --dev_percent)")
    add("--test", help="file of the test set, with or without labels (default none)")
    text = "column of the text, or two columns of a pair of texts"
    add("--text_columns", nargs="+", required=True, metavar="COLUMN", help=text)
    add("--label_column", default="label", help="column of the labels (default label)")
    add("--regression", action="store_true", help="labels are numbers to be predicted (default: names of classes)")
    text = "lowest and highest label there can be with --regression (default those in train and dev)"
    add("--score_range", nargs=2, type=float, metavar=("LOWEST", "HIGHEST"), help=text)
    add("--metric", choices=tuple(METRICS), help="f1 is of the second class (default acc, or corr with --regression)")
    add("--data_dir", default="datasets", help="folder that gets the task's folder (default datasets)")
    text = "percent of train that become dev without --dev (default 10)"
    add("--dev_percent", type=number(int, 1, 50), default=10, help=text)
    add("--seed", type=number(int, 0, 2**32 - 1), default=776, help="seed that draws these rows (default 776)")
    add("--model_path", help="folder or hub name of a model whose tokens are counted (default: count words)")
    text = f"count the rows of more tokens, which training with this --max_length cuts (default {MAX_LENGTH})"
    add("--max_length", type=number(int, 4), default=MAX_LENGTH, help=text)
    add("--overwrite", action="store_true", help="replace the task if there is one of this name (default: an error)")
    args = parser.parse_args(argv)
    if not is_own_name(args.name):
        parser.error(f"name: found {args.name!r}, expected letters, digits, _ and -, and none of GLUE's names")
    if args.score_range and not args.regression:
        parser.error("--score_range: for --regression, which is not given")
    return args


def check_folder(folder: Path, sources: dict[str, Path], overwrite: bool) -> None:
    """Check that nothing but an earlier version of the task is replaced.

    Raises:
        InputError: the folder exists without --overwrite, holds other files than a task's, or one of the sources.
    """
    for split, source in sources.items():
        if source.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"--{split} {source}: in the folder that is written; expected a file elsewhere")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: a file, expected a folder or nothing")
    if not overwrite:
        raise InputError(f"{folder}: exists; --overwrite replaces it")
    known = {TASK_FILE, *(f"{split}{suffix}" for split in SPLITS for suffix in SUFFIXES)}
    others = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if others:
        raise InputError(
            f"{folder}: holds {listed(others)}, which --overwrite would remove; expected {TASK_FILE} alone"
        )


def define(args: argparse.Namespace, sources: dict[str, Path]) -> Task:
    """The task, with the labels or the range of scores that its files hold.

    Raises:
        InputError: a label is empty, no number with --regression, one of a kind, or another one but for white space;
            all are the same; the metric is none for such labels; columns are named twice.
    """
    definition = {"text_columns": args.text_columns, "label_column": args.label_column}
    if args.regression:
        definition["score_range"] = args.score_range or score_range(sources, args.label_column)
    else:
        definition["labels"] = labels_of(sources["train"], args.label_column)
    definition["metric"] = args.metric or ("corr" if args.regression else "acc")
    fault = metric_fault(definition["metric"], definition.get("labels", ()))
    if fault:
        raise InputError(f"--metric {definition['metric']}: {fault}")
    return own_task(args.name, definition, f"task {args.name}")


def labels_of(path: Path, column: str) -> list[str]:
    """The labels of a file as they are written: sorted as numbers if all are numbers, else by the alphabet."""
    first: dict[str, int] = {}  # label -> line where it occurs first
    counts: Counter[str] = Counter()
    by_name: dict[str, str] = {}
    for line, label in _fields(path, column):
        name = label.strip()
        if len(name.splitlines()) != 1:
            found = "a label of several lines" if name else "empty"
            raise InputError(f"{path} line {line}: {column} is {found}, expected a label")
        first.setdefault(label, line)
        other = by_name.setdefault(name, label)
        if other != label:
            there = f"{shown(other)} in line {first[other]}"
            raise InputError(f"{path} line {line}: label {shown(label)} is {there} but for white space")
        counts[name] += 1

    numbers = {name: number_of(name) for name in counts}
    are_numbers = not np.isnan(list(numbers.values())).any()
    single = next((label for label in first if counts[label.strip()] == 1), None)
    if single is not None:
        advice = "; --regression predicts numbers" if are_numbers else ""
        found = f"label {shown(single)} has this row alone"
        raise InputError(f"{path} line {first[single]}: {found}, expected at least two rows of each label{advice}")
    if len(counts) < 2:
        raise InputError(f"{path}: labels {listed(list(counts)) or 'none'}, expected rows of at least two labels")
    return sorted(counts, key=lambda name: (numbers[name], name) if are_numbers else name)


def score_range(sources: dict[str, Path], column: str) -> list[float]:
    """The lowest and the highest score of train and dev."""
    ends: list[float] = []
    for path in (sources[split] for split in ("train", "dev") if split in sources):
        for line, field in _fields(path, column):
            score = number_of(field.strip())
            if not np.isfinite(score):
                raise InputError(f"{path} line {line}: {column} is {shown(field)}, expected a number")
            ends = [min([*ends, score]), max([*ends, score])]
    if len(set(ends)) < 2:
        raise InputError(f"{sources['train']}: scores {ends[:1]}, expected rows of different scores")
    return ends


def _fields(path: Path, column: str) -> Iterator[tuple[int, str]]:
    """Line and field of each row in one column, with the white space around it."""
    return ((line, field) for line, [field] in read_columns(path, [column], strip=False))


def write(folder: Path, task: Task, sources: dict[str, Path], dev: list[int] | None) -> None:
    """Write the task's folder at once: its definition and the files as they are, or train split in two.

    Args:
        dev: rows of train that become dev, from 0; None if there is a file of dev.
    """
    with written_beside(folder) as beside:
        beside.mkdir()
        for split, source in sources.items():
            if dev is None or split != "train":
                shutil.copyfile(source, beside / f"{split}{source.suffix.lower()}")
            else:
                write_parts(beside, task, source, dev)
        text = json.dumps(task.definition, indent=2, ensure_ascii=False)
        (beside / TASK_FILE).write_text(f"{text}\n", encoding="utf-8")


def lengths_table(parts: dict[str, Split], args: argparse.Namespace) -> str:
    """Rows of each split and their lengths, in tokens if a model is named."""
    if args.model_path:
        from utils.batches import tokenise
        from utils.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(args.model_path)
        lengths = {name: tokenise(part, tokenizer, UNCUT).lengths.numpy() for name, part in parts.items()}
    else:
        lengths = {
            name: np.array([len(" ".join(row).split()) for row in texts_of(part)]) for name, part in parts.items()
        }
    unit = "tokens" if args.model_path else "words"
    header = ["split", "rows", f"mean {unit}", f"most {unit}"]
    lengths = {name: lengths[name] for name in SPLITS if name in lengths}
    lines = [[name, len(counts), f"{counts.mean():.1f}", counts.max()] for name, counts in lengths.items()]
    if args.model_path:
        header.append(f"cut at {args.max_length}")
        for line, counts in zip(lines, lengths.values(), strict=True):
            line.append((counts > args.max_length).sum())
    return table(header, lines)


def texts_of(part: Split) -> list[tuple[str, ...]]:
    """The texts of each row."""
    return list(zip(part.first, *filter(None, [part.second]), strict=True))


def labels_table(parts: dict[str, Split], task: Task) -> str:
    """Classes and their shares in train and dev, or the range of scores."""
    parts = {name: part for name, part in parts.items() if name != "test"}
    if not task.labels:
        scores = {name: task.from_model(np.array(part.labels)) for name, part in parts.items()}
        lines = [(name, *(f"{n:g}" for n in (s.min(), s.mean(), s.max()))) for name, s in scores.items()]
        return table(("split", "lowest", "mean", "highest"), lines)
    counts = {name: np.bincount(part.labels, minlength=len(task.labels)) for name, part in parts.items()}
    lines = []
    for index, label in enumerate(task.labels[:LONGEST_TABLE]):
        cells = [(found[index], f"{100 * found[index] / found.sum():.1f} %") for found in counts.values()]
        lines.append((label, *(cell for pair in cells for cell in pair)))
    more = len(task.labels) - len(lines)
    text = table(("class", *(word for name in parts for word in (name, "share"))), lines)
    return f"{text}\nand {more} classes more" if more else text


def notes(parts: dict[str, Split], task: Task) -> Iterator[str]:
    """What may be wrong with the data: rows that splits share, and labels that are almost the same."""
    train = set(texts_of(parts["train"]))
    for name in ("dev", "test"):
        shared = [row for row in texts_of(parts[name]) if row in train] if name in parts else []
        if shared:
            yield f"{len(shared)} rows of {name} are in train, too, the first {' | '.join(map(shown, shared[0]))}"
    if len(task.text) > 1:
        texts = {text for row in train for text in row}
        recur = sum(not texts.isdisjoint(row) for row in texts_of(parts["dev"]))
        if recur:
            yield f"{recur} rows of dev share one of their two texts with a row of train"
    count = Counter(map(_folded, task.labels))
    alike = [label for label in task.labels if count[_folded(label)] > 1]
    if alike:
        yield f"labels that may be the same: {listed(alike)}"
    blank = [label for label in task.labels if label.casefold() in MISSING]
    if blank:
        yield f"classes that may stand for a missing label: {listed(blank)}"
    in_dev = set(parts["dev"].labels)
    lacking = [label for index, label in enumerate(task.labels) if index not in in_dev]
    if lacking:
        yield f"classes without a row of dev: {listed(lacking)}"
    if task.metric in OF_TWO_CLASSES:
        yield f"F1 is that of class {shown(task.labels[1])}"


def _folded(label: str) -> str | float:
    """What labels that may be the same have in common: their number, or their text but for case and width."""
    number = number_of(label)
    return unicodedata.normalize("NFKC", label).casefold() if math.isnan(number) else number


@entry_point()
def main(argv=None):
    args = parse_args(argv)
    folder = Path(args.data_dir, args.name)
    sources = {split: Path(path) for split in SPLITS if (path := getattr(args, split))}

    # read and check everything before anything is written
    check_folder(folder, sources, args.overwrite)
    task = define(args, sources)
    parts = {split: read_own(path, task, split) for split, path in sources.items()}
    dev = None  # rows of train
    if not args.dev:
        train = parts["train"]
        dev = dev_rows(train, task, args.dev_percent, args.seed, sources["train"])
        remaining = sorted(set(range(len(train.first))) - set(dev))
        parts |= {"train": rows_of(train, remaining), "dev": rows_of(train, dev)}
    report = [lengths_table(parts, args), labels_table(parts, task), *notes(parts, task)]

    # another process may be adding a task of this name, or have added it
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock(folder.with_name(f".{args.name}.lock"))
    check_folder(folder, sources, args.overwrite)
    write(folder, task, sources, dev)
    for line in (*report, f"metric {task.metric}; written to {folder}: --task_name {args.name}"):
        log.write_line(line)


if __name__ == "__main__":
    main()
