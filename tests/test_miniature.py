"""scripts/make_miniature.py: the task and the checkpoint that the quickstart runs on.

python -m pytest tests/test_miniature.py
"""

from pathlib import Path

import pytest

from models.checkpoint import load_model
from scripts.make_miniature import main
from utils.readers import read_split
from utils.tasks import TASKS
from utils.tokenizer import load_tokenizer

SIZES = {"train": 600, "dev": 150, "test": 40}


def generate(folder: Path, seed: int = 776) -> Path:
    main(["--dir", str(folder), "--seed", str(seed), *(f"--{split}={size}" for split, size in SIZES.items())])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def miniature(tmp_path_factory) -> Path:
    return generate(tmp_path_factory.mktemp("miniature"))


def test_one_seed_gives_the_same_bytes_and_another_gives_others(miniature, tmp_path):
    first = contents(miniature)
    assert first == contents(generate(tmp_path / "again"))
    assert {f"datasets/rte/{split}.tsv" for split in SIZES} <= set(first)
    assert {f"bert/{name}" for name in ("config.json", "model.safetensors", "vocab.txt")} <= set(first)
    other = contents(generate(tmp_path / "other", seed=1))
    assert other.keys() == first.keys()
    for name in ("datasets/rte/train.tsv", "bert/model.safetensors"):
        assert other[name] != first[name]


@pytest.mark.parametrize("split", SIZES)
def test_the_reader_of_rte_finds_every_row(miniature, split):
    assert len(read_split("rte", str(miniature / "datasets"), split).first) == SIZES[split]


@pytest.mark.parametrize("split", ["train", "dev"])
def test_both_classes_are_about_as_frequent(miniature, split):
    labels = read_split("rte", str(miniature / "datasets"), split).labels
    assert 0.4 <= sum(labels) / len(labels) <= 0.6


def test_no_pair_occurs_twice_in_or_across_splits(miniature):
    pairs = []
    for split in SIZES:
        rows = read_split("rte", str(miniature / "datasets"), split)
        pairs += zip(rows.first, rows.second, strict=True)
    assert len(pairs) == len(set(pairs)) == sum(SIZES.values())


def test_stage_1_can_start_from_the_checkpoint(miniature):
    labels = TASKS["rte"].labels
    model = load_model(str(miniature / "bert"), labels, fine_tuned=False)
    assert (len(model.layers), model.config.num_labels) == (4, len(labels))


def test_the_vocabulary_has_every_word_of_the_task(miniature):
    tokenizer = load_tokenizer(str(miniature / "bert"))
    texts = []
    for split in SIZES:
        rows = read_split("rte", str(miniature / "datasets"), split)
        texts += rows.first + rows.second
    rows = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    tokens = {token for row in rows for token in row.ids}
    assert tokens
    assert tokenizer.get_vocab()["[UNK]"] not in tokens
    assert max(tokens) < load_model(str(miniature / "bert"), TASKS["rte"].labels, fine_tuned=False).config.vocab_size
