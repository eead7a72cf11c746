"""Tokenising into a flat array, and batches from index lists."""

import argparse
import random
from dataclasses import replace

import pytest
import torch
from conftest import sentence
from transformers import AutoTokenizer

from utils.batches import tokenise
from utils.readers import Split
from utils.reading import split_dev
from utils.seeds import set_seed


def random_split(rows: int, pairs: bool = True, longest: int = 12) -> Split:
    rng = random.Random(0)
    texts = [[sentence(rng, rng.randint(1, longest)) for _ in range(rows)] for _ in range(2)]
    return Split(texts[0], texts[1] if pairs else None, [rng.randint(0, 1) for _ in range(rows)])


@pytest.fixture
def reference(bert_folder):
    """The same tokenizer as the transformers library reads it."""
    return AutoTokenizer.from_pretrained(bert_folder)


def rows_of(examples) -> list[list[int]]:
    return [row.tolist() for row in examples.tokens.tensor_split(examples.offsets[1:])]


@pytest.mark.parametrize("pairs", [True, False])
def test_tokens_types_and_masks_equal_the_librarys(tokenizer, reference, pairs):
    split = random_split(23, pairs)
    batch = tokenise(split, tokenizer, 40).batch(torch.arange(23))
    expected = reference(split.first, split.second, padding=True, return_tensors="pt")
    assert torch.equal(batch.input_ids.long(), expected["input_ids"])
    assert torch.equal(batch.token_type_ids.long(), expected["token_type_ids"])
    assert torch.equal(batch.attention_mask.long(), expected["attention_mask"])


def pop_the_longer(first: list, second: list, room: int) -> tuple[list, list]:
    """The paper's rule, token by token: the longer one loses its last, of equals the second."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    return first, second


@pytest.mark.parametrize("max_length", [4, 5, 8, 11, 12, 20])
def test_long_pairs_are_cut_as_in_the_papers_code(tokenizer, reference, max_length):
    split = random_split(60)
    for row, first, second in zip(
        rows_of(tokenise(split, tokenizer, max_length)), split.first, split.second, strict=True
    ):
        texts = [reference(text, add_special_tokens=False)["input_ids"] for text in (first, second)]
        a, b = pop_the_longer(*texts, max_length - 3)
        assert row == [tokenizer.cls_token_id, *a, tokenizer.sep_token_id, *b, tokenizer.sep_token_id]


def test_long_single_sentences_are_cut(tokenizer):
    rows = rows_of(tokenise(random_split(20, pairs=False), tokenizer, 6))
    assert max(map(len, rows)) == 6
    assert all(row[-1] == tokenizer.sep_token_id for row in rows)


def test_an_empty_second_sentence_makes_a_single_one(tokenizer, reference):
    examples = tokenise(Split(["w1 w2", "w3"], ["", "w4"], [0, 1]), tokenizer, 20)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    w = [reference.convert_tokens_to_ids(f"w{i}") for i in range(5)]
    assert rows_of(examples) == [[cls, w[1], w[2], sep], [cls, w[3], sep, w[4], sep]]
    assert examples.batch(torch.arange(2)).token_type_ids.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]


def test_an_empty_sentence_is_a_row_all_the_same(tokenizer):
    batch = tokenise(Split(["", "w1"], None, [0, 1]), tokenizer, 20).batch(torch.arange(2))
    assert batch.attention_mask.sum(1).tolist() == [2, 3]


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 16, 1001])
def test_an_epoch_and_an_evaluation_see_every_example_once(tokenizer, rows, group):
    examples = replace(tokenise(random_split(rows), tokenizer, 40), group_by_length=group)
    epoch = examples.epoch(16, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(epoch).tolist()) == list(range(rows))
    assert sorted(map(len, epoch)) == sorted([16] * (rows // 16) + [rows % 16] * (rows % 16 > 0))
    assert sorted(torch.cat([batch.example_ids for batch in examples.eval_batches(16)]).tolist()) == list(range(rows))


def test_batches_of_similar_lengths_hold_little_padding_and_differ_between_epochs(tokenizer):
    examples, generator = tokenise(random_split(2000), tokenizer, 40), torch.Generator().manual_seed(0)
    first, second = examples.epoch(16, generator), examples.epoch(16, generator)
    padded = sum(int(examples.lengths[ids].max()) * len(ids) for ids in first)
    assert padded < 1.03 * int(examples.lengths.sum())
    assert {tuple(ids.tolist()) for ids in first} != {tuple(ids.tolist()) for ids in second}
    lengths = [int(examples.lengths[ids].max()) for ids in first]
    assert lengths != sorted(lengths)


def test_the_papers_way_pads_to_max_length_in_file_order(tokenizer):
    examples = replace(tokenise(random_split(9), tokenizer, 40), pad_to=40, group_by_length=False)
    batches = list(examples.eval_batches(4))
    assert [tuple(batch.input_ids.shape) for batch in batches] == [(4, 40), (4, 40), (1, 40)]
    assert torch.cat([batch.example_ids for batch in batches]).tolist() == list(range(9))


def test_labels_are_class_ids_or_scores(tokenizer):
    split = Split(["w1"], None, [2.5])
    assert tokenise(split, tokenizer, 9, regression=True).batch(torch.tensor([0])).labels.tolist() == [2.5]
    assert tokenise(split._replace(labels=[1]), tokenizer, 9).labels.dtype == torch.long


@pytest.mark.parametrize("regression", [False, True])
def test_halves_are_disjoint_alike_and_always_the_same(tokenizer, regression):
    split = random_split(41)
    labels = [index / 10 for index in range(41)] if regression else [int(index < 11) for index in range(41)]
    examples = tokenise(split._replace(labels=labels), tokenizer, 40, regression)
    halves = examples.halves()
    assert [len(half) for half in halves] == [21, 20]
    rows = [[tuple(row[row != 0].tolist()) for row in half.batch(torch.arange(len(half))).input_ids] for half in halves]
    whole = [tuple(row[row != 0].tolist()) for row in examples.batch(torch.arange(41)).input_ids]
    assert sorted(rows[0] + rows[1]) == sorted(whole)
    assert rows[0] == [row for row in whole if row in rows[0]]  # in file order
    means = [half.labels.float().mean().item() for half in halves]
    assert means[0] == pytest.approx(means[1], abs=0.06)
    if not regression:
        assert sorted(int(half.labels.sum()) for half in halves) == [5, 6]  # of 11
    for seed in (0, 1, 776):
        set_seed(seed)
        flags = argparse.Namespace(selection_split="half", seed=seed)
        for ours, other in zip(halves, split_dev(flags, examples), strict=True):
            assert torch.equal(ours.offsets, other.offsets)
