"""The table of tasks: labels, metric, files and sizes of GLUE's.

task = TASKS["rte"]
path = split_path("rte", "datasets", "dev")  # datasets/rte/dev.tsv
"""

import os
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError


class Sizes(NamedTuple):
    """How large a training is; the fields are the names of the flags whose defaults they are."""

    per_device_train_batch_size: int = 16  # examples
    learning_rate: float = 3e-5  # peak
    num_train_epochs: int = 10


class Task(NamedTuple):
    """A GLUE task: its labels, its metric, what its files hold, and how it is trained."""

    title: str  # GLUE's name, also the name of the submission file
    labels: tuple[str, ...]  # names in the order of the class ids; () is regression
    metric: str  # what selects the best checkpoint
    text: tuple[str, ...]  # columns of the sentence, or of the first and the second
    values: tuple[str, ...] = ()  # the labels as the files write them, if not by name
    folder: str = ""  # of its files, if not by its own name
    suffix: str = ""  # of dev and test files
    header: bool = True  # in train and dev; test always has one
    skip_short: bool = False  # the official files hold rows broken in two, which the official counts leave out
    rows: tuple[int, ...] = ()  # of GLUE's train, dev and test files, as their authors count them
    sizes: Sizes = Sizes()  # the paper's for RTE

    @property
    def file_labels(self) -> tuple[str, ...]:
        """The labels as GLUE's files write them, in the order of the class ids; () is regression."""
        return self.values or self.labels

    @property
    def zip_folder(self) -> str:
        """The folder that GLUE's zip unpacks to; one for both of MNLI."""
        return self.title.removesuffix("-m").removesuffix("-mm")

    def file_name(self, split: str) -> str:
        """The file of "train", "dev" or "test"."""
        return f"{split}{'' if split == 'train' else self.suffix}.tsv"


SCORE_RANGE = (0, 5)  # of regression's labels and predictions


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
    "mnlimm": Task(
        "MNLI-mm", NLI, "acc", PAIR, folder="mnli", suffix="_mismatched", rows=(392702, 9832, 9847), sizes=LARGE
    ),
    "cola": Task("CoLA", ACCEPTABLE, "matthews_corrcoef", ("sentence",), BINARY, header=False, rows=(8551, 1043, 1063)),
    "wnli": Task("WNLI", ENTAILMENT, "acc", PAIR, BINARY, rows=(635, 71, 146)),
}
SYNONYMS = {  # how files call a column -> what Task.text calls it, or "label"
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


def task_folder(task_name: str, data_dir: str) -> Path:
    """The task's folder of TSV files, or the one that GLUE's zip unpacks to; mnlimm falls back on mnli's.

    Raises:
        InputError: there is none.
    """
    task = TASKS[task_name]
    names = (task_name, task.folder or task_name, task.zip_folder)
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
    folder = task_folder(task_name, data_dir)
    path = folder / TASKS[task_name].file_name(split)
    if not path.is_file():
        raise InputError(f"{path}: no such file, found {', '.join(sorted(os.listdir(folder))) or 'an empty folder'}")
    return path
