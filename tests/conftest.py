"""Small checkpoints and GLUE files that the tests make for themselves, without a network.

Packages that take seconds are imported where they are used: with workers, pytest's first process needs none of them.
"""

import json
import multiprocessing
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it starts with &
os.fsync = lambda _: None  # which waits for the disk; this machine does not crash
REFERENCE = Path(__file__).parent / "fixtures" / "reference"
WORDS = [f"w{index}" for index in range(40)]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
HEADERS = {
    "rte": "index\tsentence1\tsentence2\tlabel",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that import torch's compiler first: --dist worksteal gives them to one worker."""
    items.sort(key=lambda item: item.get_closest_marker("compiles") is None)


def small_config(**changes) -> Any:
    """A BertConfig of 3 layers with 4 heads and 32 neurons each."""
    from transformers import BertConfig

    settings = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "initializer_range": 0.2,
    }
    return BertConfig(**{**settings, **changes})


def write_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')


def edit_config(folder: Path, **changes) -> None:
    """Change keys of config.json; None removes one."""
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def write_bert(folder: Path, **changes) -> None:
    """Write a small BERT without a classifier, as Hugging Face's library saves it."""
    import torch
    from transformers import BertModel

    torch.manual_seed(0)
    BertModel(small_config(**changes)).save_pretrained(folder)
    write_vocabulary(folder)


def random_batch(config: Any, rows: int = 5, width: int = 11) -> tuple[Any, ...]:
    """Token ids, token types and mask with different lengths, the shortest of 2 tokens."""
    import torch

    lengths = torch.linspace(2, width, rows).long()
    mask = torch.arange(width) < lengths[:, None]
    ids = torch.randint(5, config.vocab_size, (rows, width)).masked_fill(~mask, 0)
    types = (torch.arange(width) >= lengths[:, None] // 2).long() * mask
    return ids, types, mask


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def write_task(folder: Path, task: str, sizes: tuple[int, int, int] = (50, 21, 9)) -> Path:
    """Write a learnable RTE or STS-B: the label depends on whether the first words of both sentences are the same."""
    rng = random.Random(1)
    (folder / task).mkdir(parents=True)
    for split, size in zip(("train", "dev", "test"), sizes, strict=True):
        header = HEADERS[task]
        lines = [header if split != "test" else header.rsplit("\t", 1)[0]]
        for index in range(size):
            first = sentence(rng, rng.randint(2, 12))
            same = rng.random() < 0.5
            second = first.split()[0] if same else sentence(rng, 1)
            label = ("entailment" if same else "not_entailment") if task == "rte" else f"{4 * same + rng.random():.3f}"
            columns = [str(index), *["x"] * (6 if task == "stsb" else 0), first, second]
            lines.append("\t".join(columns if split == "test" else [*columns, label]))
        (folder / task / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def refused(script, capsys, *flags: str, status: int = 2) -> str:
    """The one-line error of a script with these flags, which must write nothing to the current folder."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as stop:
        script.main(list(flags))
    assert stop.value.code == status
    assert sorted(Path().rglob("*")) == before
    [line] = capsys.readouterr().err.splitlines()
    return line


def forked(target: Callable, *arguments: Any) -> multiprocessing.Process:
    """A process that calls a function, and has all packages imported already."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition until it is true, for a minute at most."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"waited for {condition} in vain")


@pytest.fixture(scope="session", autouse=True)
def settings_of_packages() -> None:
    import torch
    from tqdm import tqdm
    from transformers.utils.logging import disable_progress_bar

    tqdm.set_lock(threading.RLock())  # forks would share its own, and one that is killed may hold it
    torch.set_num_threads(1)  # the models are so small that a second thread only waits
    disable_progress_bar()  # its lines would be among those that tests look at


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def token_cache(tmp_path_factory, monkeypatch) -> Path:
    """The folder of cached tokens, a new one for each test instead of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "stark"


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    """A small BERT without a classifier."""
    write_bert(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def teacher_folder(tmp_path: Path) -> Path:
    """A small model with a classifier for RTE, as saved by stage 1."""
    import torch

    from models.bert import PrunableBert

    torch.manual_seed(0)
    folder = tmp_path / "teacher"
    config = small_config(id2label={0: "not_entailment", 1: "entailment"})
    PrunableBert(config).save_pretrained(folder)
    write_vocabulary(folder)
    return folder


@pytest.fixture
def tokenizer(bert_folder: Path):
    from utils.tokenizer import load_tokenizer

    return load_tokenizer(str(bert_folder))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch, teacher_folder: Path) -> Path:
    """The current folder, with RTE in datasets/ and a model in teacher/."""
    write_task(tmp_path / "datasets", "rte")
    monkeypatch.chdir(tmp_path)
    return tmp_path
