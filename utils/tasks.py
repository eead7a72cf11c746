"""The table of GLUE's tasks: labels, metric, files, and sizes of training.

task = TASKS["rte"]
path = split_path("rte", "datasets", "dev")  # datasets/rte/dev.tsv
"""

import os
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError


class Sizes(NamedTuple):
    """Task-specific defaults of the training flags of the same names."""

    per_device_train_batch_size: int = 16  # examples
    learning_rate: float = 3e-5  # peak
    num_train_epochs: int = 10


class Task(NamedTuple):
    """A GLUE task: labels, metric, layout of its files, sizes of training."""

    title: str  # GLUE's name, also the name of the submission file
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
        return f"{self.title}.tsv"

    @property
    def submission_names(self) -> tuple[str, ...]:
        """File names of all predictions that a run may have."""
        return (self.submission_name, DIAGNOSTIC_FILE) if self.has_diagnostic else (self.submission_name,)

    def file_name(self, split: str) -> str:
        """File name of a split: "train", "dev" or "test"."""
        return f"{split}.tsv" if split == "train" else f"{split}{self.suffix}.tsv"


SCORE_RANGE = (0, 5)  # of labels and predictions of regression
# GLUE's diagnostic set, one more split without labels
DIAGNOSTIC = "ax"  # also its folder
DIAGNOSTIC_FILE = "AX.tsv"  # in its folder, and the name of its submission file
DIAGNOSTIC_ROWS = 1104

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


def task_folder(task_name: str, data_dir: str) -> Path:
    """The folder of a task's TSV files, under the task's name or that of GLUE's zip; mnlimm may share mnli's.

    Raises:
        InputError: there is no such folder.
    """
    task = TASKS[task_name]
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
        InputError: the folder or the file is missing.
    """
    if split == DIAGNOSTIC:
        return Path(data_dir, DIAGNOSTIC, DIAGNOSTIC_FILE)
    folder = task_folder(task_name, data_dir)
    path = folder / TASKS[task_name].file_name(split)
    if not path.is_file():
        raise InputError(f"{path}: no such file, found {', '.join(sorted(os.listdir(folder))) or 'an empty folder'}")
    return path


def submission_splits(task_name: str, data_dir: str) -> dict[str, str]:
    """The splits that --do_test predicts, by the names of the files that it writes."""
    task = TASKS[task_name]
    splits = {task.submission_name: "test"}
    if task.has_diagnostic and split_path(task_name, data_dir, DIAGNOSTIC).is_file():
        splits[DIAGNOSTIC_FILE] = DIAGNOSTIC
    return splits
