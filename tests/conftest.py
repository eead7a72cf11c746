"""Small checkpoints and GLUE files that the tests make for themselves; nothing is downloaded."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import random
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel
from transformers.utils.logging import disable_progress_bar

from models.bert import PrunableBert
from utils.tokenizer import load_tokenizer

disable_progress_bar()  # which would be among the lines that tests look at
torch.set_num_threads(1)  # the models are so small that a second thread only waits
REFERENCE = Path(__file__).parent / "fixtures" / "reference"
WORDS = [f"w{index}" for index in range(40)]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
HEADERS = {
    "rte": "index\tsentence1\tsentence2\tlabel",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
}


def small_config(**changes) -> BertConfig:
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


def random_batch(config: BertConfig, rows: int = 5, width: int = 11) -> tuple[torch.Tensor, ...]:
    """Token ids, token types and mask with different lengths, the shortest of 2 tokens."""
    lengths = torch.linspace(2, width, rows).long()
    mask = torch.arange(width) < lengths[:, None]
    ids = torch.randint(5, config.vocab_size, (rows, width)).masked_fill(~mask, 0)
    types = (torch.arange(width) >= lengths[:, None] // 2).long() * mask
    return ids, types, mask


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def write_task(folder: Path, task: str, sizes: tuple[int, int, int] = (50, 21, 9)) -> Path:
    """train, dev and test of a learnable RTE or STS-B: the label says how many first words the sentences share."""
    rng = random.Random(1)
    (folder / task).mkdir(parents=True)
    for split, size in zip(("train", "dev", "test"), sizes, strict=True):
        header = HEADERS[task]
        lines = [header if split != "test" else header.rsplit("\t", 1)[0]]
        for index in range(size):
            first, same = sentence(rng, rng.randint(2, 12)), rng.random() < 0.5
            second = first.split()[0] if same else sentence(rng, 1)
            label = ("entailment" if same else "not_entailment") if task == "rte" else f"{4 * same + rng.random():.3f}"
            columns = [str(index), *["x"] * (6 if task == "stsb" else 0), first, second]
            lines.append("\t".join(columns if split == "test" else [*columns, label]))
        (folder / task / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def refused(script, capsys, *flags: str, status: int = 2) -> str:
    """The one line with which a script refuses these flags, which leave nothing behind in the current folder."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as stop:
        script.main(list(flags))
    assert stop.value.code == status
    assert sorted(Path().rglob("*")) == before
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(autouse=True)
def token_cache(tmp_path_factory, monkeypatch) -> Path:
    """Tokens are cached apart from the user's, and afresh for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "stark"


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    """A small pretrained BERT as Hugging Face's library saves one, without a classifier."""
    torch.manual_seed(0)
    folder = tmp_path / "bert"
    BertModel(small_config()).save_pretrained(folder)
    write_vocabulary(folder)
    return folder


@pytest.fixture
def teacher_folder(tmp_path: Path) -> Path:
    """A small model with a classifier for RTE, as stage 1 leaves one."""
    torch.manual_seed(0)
    folder = tmp_path / "teacher"
    config = small_config(id2label={0: "not_entailment", 1: "entailment"})
    PrunableBert(config).save_pretrained(folder)
    write_vocabulary(folder)
    return folder


@pytest.fixture
def tokenizer(bert_folder: Path):
    return load_tokenizer(str(bert_folder))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch, teacher_folder: Path) -> Path:
    """The current folder, with RTE in datasets/ and a model in teacher/."""
    write_task(tmp_path / "datasets", "rte")
    monkeypatch.chdir(tmp_path)
    return tmp_path
