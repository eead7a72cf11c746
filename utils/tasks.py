"""Tasks: labels, metric, files, and sizes of training; the table of GLUE's, and own ones from their task.json.

task = find_task("rte", "datasets")
path = split_path("rte", "datasets", "dev")  # datasets/rte/dev.tsv
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import InputError
from utils.rows import SUFFIXES, listed

SCORE_RANGE = (0, 5)  # of STS-B's labels, and of what a model learns and predicts in any regression


def rescale(score: Any, before: tuple[float, float], after: tuple[float, float]) -> Any:
    """A score, or an array of scores, of the range `before` (lowest, highest) on the range `after`."""
    if before == after:  # not a rounding error away
        return score
    return after[0] + (score - before[0]) / (before[1] - before[0]) * (after[1] - after[0])


class Sizes(NamedTuple):
    """Task-specific defaults of the training flags of the same names."""

    per_device_train_batch_size: int = 16  # examples
    learning_rate: float = 3e-5  # peak
    num_train_epochs: int = 10


class Task(NamedTuple):
    """A task: labels, metric, layout of its files, sizes of training."""

    title: str  # GLUE's name, or that of an own task; also the name of the submission file
    labels: tuple[str, ...]  # names in the order of the class ids; () is regression
    metric: str  # key of utils.metrics.METRICS; its first number selects the best weights
    text: tuple[str, ...]  # names of the columns with the sentence, or both sentences
    values: tuple[str, ...] = ()  # the labels as the files write them, if not as in `labels`
    folder: str = ""  # folder of its files, if not the task's name
    suffix: str = ""  # in the names of dev and test files
    header: bool = True  # whether train and dev have one; test always does
    skip_short: bool = False  # the official files hold rows broken in two, which the official counts leave out
    rows: tuple[int, ...] = ()  # official number of rows of train, dev and test
    has_diagnostic: bool = False  # whether GLUE's diagnostic set is predicted, too, if its file is there
    sizes: Sizes = Sizes()  # the paper's for RTE
    is_own: bool = False  # whether it is defined by its task.json, not one of GLUE's
    label_column: str = "label"  # of an own task's files
    score_range: tuple[float, float] = SCORE_RANGE  # lowest and highest label of regression

    @property
    def file_labels(self) -> tuple[str, ...]:
        """The labels as GLUE's files write them, in the order of the class ids; () is regression."""
        return self.values or self.labels

    @property
    def zip_folder(self) -> str:
        """The folder in GLUE's zip; one for both MNLI tasks."""
        return self.title.removesuffix("-m").removesuffix("-mm")

    @property
    def submission_name(self) -> str:
        """File name of the predictions of its test set."""
        return f"{self.title}.csv" if self.is_own else f"{self.title}.tsv"

    @property
    def submission_names(self) -> tuple[str, ...]:
        """File names of all predictions that a run may have."""
        return (self.submission_name, DIAGNOSTIC_FILE) if self.has_diagnostic else (self.submission_name,)

    def file_names(self, split: str) -> tuple[str, ...]:
        """File names that a split may have: "train", "dev" or "test"."""
        if self.is_own:
            return tuple(f"{split}{suffix}" for suffix in SUFFIXES)
        return (f"{split}.tsv" if split == "train" else f"{split}{self.suffix}.tsv",)

    def to_model(self, score: float) -> float:
        """A label of regression on the scale of SCORE_RANGE, for which the learning rates are made."""
        return rescale(score, self.score_range, SCORE_RANGE)

    def from_model(self, predictions: Any) -> Any:
        """An array (N,) of predicted scores on the scale of the labels; of class ids as it is."""
        return predictions if self.labels else rescale(predictions.astype(float), SCORE_RANGE, self.score_range)

    @property
    def definition(self) -> dict[str, Any]:
        """Content of an own task's task.json."""
        kind = {"labels": list(self.labels)} if self.labels else {"score_range": list(self.score_range)}
        columns = {"text_columns": list(self.text), "label_column": self.label_column}
        return {**columns, **kind, "metric": self.metric}


# GLUE's diagnostic set, one more split without labels
DIAGNOSTIC = "ax"  # also its folder
DIAGNOSTIC_FILE = "AX.tsv"  # in its folder, and the name of its submission file
DIAGNOSTIC_ROWS = 1104
TASK_FILE = "task.json"  # in the folder of an own task

# labels in the order of the class ids
ENTAILMENT = ("not_entailment", "entailment")
NLI = ("contradiction", "neutral", "entailment")
EQUIVALENT = ("not_equivalent", "equivalent")
DUPLICATE = ("not_duplicate", "duplicate")
ACCEPTABLE = ("unacceptable", "acceptable")
SENTIMENT = ("negative", "positive")
BINARY = ("0", "1")
# columns of text
PAIR = ("sentence1", "sentence2")
QUESTIONS = ("question1", "question2")
# sizes of training
MEDIUM = Sizes(32, num_train_epochs=5)
LARGE = Sizes(32, num_train_epochs=3)
TASKS = {
    "rte": Task("RTE", ENTAILMENT, "acc", PAIR, rows=(2490, 277, 3000)),
    "mrpc": Task("MRPC", EQUIVALENT, "acc_and_f1", PAIR, BINARY, rows=(3668, 408, 1725)),
    "stsb": Task("STS-B", (), "corr", PAIR, rows=(5749, 1500, 1379)),
    "sst2": Task("SST-2", SENTIMENT, "acc", ("sentence",), BINARY, rows=(67349, 872, 1821), sizes=MEDIUM),
    "qnli": Task("QNLI", ENTAILMENT, "acc", ("question", "sentence"), rows=(104743, 5463, 5463), sizes=MEDIUM),
    "qqp": Task(
        "QQP", DUPLICATE, "acc_and_f1", QUESTIONS, BINARY, skip_short=True, rows=(363846, 40430, 390965), sizes=LARGE
    ),
    "mnli": Task(
        "MNLI-m",
        NLI,
        "acc",
        PAIR,
        suffix="_matched",
        rows=(392702, 9815, 9796),
        sizes=LARGE,
        has_diagnostic=True,
    ),
    "mnlimm": Task(
        "MNLI-mm", NLI, "acc", PAIR, folder="mnli", suffix="_mismatched", rows=(392702, 9832, 9847), sizes=LARGE
    ),
    "cola": Task("CoLA", ACCEPTABLE, "matthews_corrcoef", ("sentence",), BINARY, header=False, rows=(8551, 1043, 1063)),
    "wnli": Task("WNLI", ENTAILMENT, "acc", PAIR, BINARY, rows=(635, 71, 146)),
}
SYNONYMS = {  # names of columns in files -> their name in Task.text, or "label"
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
LABELLED = ("train", "dev")
HEADERS = {  # columns of the official train, dev and test files; CoLA's train and dev have no header line
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


def official_columns(task_name: str, split: str) -> list[str]:
    """The columns of a split's official file, in its order."""
    header = RTE_COLUMNS if split == DIAGNOSTIC else HEADERS[task_name][SPLITS.index(split)]
    return header.split(", ")


def find_task(name: str, data_dir: str) -> Task:
    """A task of GLUE's, or the own one that <data_dir>/<name>/task.json defines.

    Raises:
        InputError: there is neither, or task.json does not define a task.
    """
    if name in TASKS:
        return TASKS[name]
    path = Path(data_dir, name, TASK_FILE)
    if not is_own_name(name) or not path.is_file():
        own = sorted(file.parent.name for file in Path(data_dir).glob(f"*/{TASK_FILE}"))
        raise InputError(
            f"--task_name {name}: unknown, expected one of GLUE's {', '.join(TASKS)}, or an own one, which "
            f"scripts/add_task.py adds to --data_dir {data_dir} (found {', '.join(own) or 'none'})"
        )
    from utils.files import read_json  # here, since downloads need this module and no package

    return own_task(name, read_json(path), str(path))


def task_of(settings: Mapping[str, Any]) -> Task:
    """The task of a run, from its settings alone: its data may be gone, or have changed.

    Args:
        settings: content of its args.json.

    Raises:
        InputError: the settings do not define a task.
    """
    name = settings["task_name"]
    if "task" in settings:
        return own_task(name, settings["task"], f"task of {name}'s args.json")
    if name not in TASKS:
        raise InputError(f"task_name {name} of args.json: none of GLUE's, and args.json has no task")
    return TASKS[name]


def title_of(name: str) -> str:
    """The title of a task by its name; an own task has no other."""
    return TASKS[name].title if name in TASKS else name


def is_own_name(name: str) -> bool:
    """Whether an own task may have this name, which becomes part of folder names and is none of GLUE's."""
    glue = {known.casefold() for task in TASKS.values() for known in (task.title, task.zip_folder)}
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)) and name.casefold() not in glue | {*TASKS, "ax"}


def own_task(name: str, definition: Any, source: str) -> Task:
    """The task that the content of a task.json defines.

    Args:
        name: of the task.
        definition: an object with text_columns, label_column, metric, and labels or score_range.
        source: where it stands, for the message.

    Raises:
        InputError: something is missing, left over, or not what it has to be.
    """
    from utils.task_file import check_definition  # here for the same reason

    check_definition(definition, source)
    return Task(
        title=name,
        labels=tuple(definition.get("labels", ())),
        metric=definition["metric"],
        text=tuple(definition["text_columns"]),
        is_own=True,
        label_column=definition["label_column"],
        score_range=tuple(map(float, definition.get("score_range", SCORE_RANGE))),
    )


def task_folder(task_name: str, data_dir: str) -> Path:
    """The folder of a task's files, under the task's name or that of GLUE's zip; mnlimm may share mnli's.

    Raises:
        InputError: there is no such folder.
    """
    task = find_task(task_name, data_dir)
    names = (task_name, task.folder or task_name, task.zip_folder)
    for name in names:
        if Path(data_dir, name).is_dir():
            return Path(data_dir, name)
    raise InputError(
        f"{Path(data_dir, task_name)}: no such folder, expected the task's TSV files "
        f"(bash scripts/download_glue.sh {task_name}, or --data_dir)"
    )


def split_path(task_name: str, data_dir: str, split: str) -> Path:
    """Path of a split's file; `split` is "train", "dev", "test" or DIAGNOSTIC.

    Raises:
        InputError: the folder or the file is missing, or there are several for a split of an own task.
    """
    if split == DIAGNOSTIC:
        return Path(data_dir, DIAGNOSTIC, DIAGNOSTIC_FILE)
    folder = task_folder(task_name, data_dir)
    names = find_task(task_name, data_dir).file_names(split)
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise InputError(f"{folder}: found {listed([path.name for path in found])}, expected one {split} file")
    if not found:
        there = ", ".join(sorted(os.listdir(folder))) or "an empty folder"
        raise InputError(f"{folder / ' or '.join(names)}: no such file, found {there}")
    return found[0]


def has_split(task_name: str, data_dir: str, split: str) -> bool:
    """Whether there is a file of this split; `split` is "train", "dev" or "test"."""
    folder = task_folder(task_name, data_dir)
    return any((folder / name).is_file() for name in find_task(task_name, data_dir).file_names(split))


def submission_splits(task_name: str, data_dir: str) -> dict[str, str]:
    """The splits that --do_test predicts, by the names of the files that it writes."""
    task = find_task(task_name, data_dir)
    splits = {task.submission_name: "test"}
    if task.has_diagnostic and split_path(task_name, data_dir, DIAGNOSTIC).is_file():
        splits[DIAGNOSTIC_FILE] = DIAGNOSTIC
    return splits
