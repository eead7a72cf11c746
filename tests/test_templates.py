"""Tokens of every family of encoders are the library's, special tokens and token types included."""

import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
import torch
from conftest import small_config, write_task
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    CamembertTokenizer,
    DistilBertTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

import run_pruning
from models.bert import PrunableBert
from utils.batches import tokenise
from utils.cache import load_examples
from utils.errors import InputError
from utils.readers import Split
from utils.special_tokens import Template
from utils.tokenizer import load_tokenizer

FIRST = [
    "The cat sat on the mat, and the cat slept there all the day long.",
    "  Un café, s'il vous plaît!  ",
    "Η γάτα κοιμάται πάνω στο χαλί",
    "猫は畳の上で寝ている。猫",
    "قطة على السجادة",
    "a <mask> b [MASK] c</s>d [SEP]e",
    "tab\there, CAFE\u0301 naïve 😀 \u00a0x",
    "x",
    "",
]
SECOND = ["A dog barked at the cat", "", "ο σκύλος", "犬と猫", "كلب", " <s> x", "naïve", "the cat sat on " * 5, "dog"]
BERTS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTAS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
NAMED = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ROBERTAS_NAMED = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}
TYPED = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
TYPELESS = ["input_ids", "attention_mask"]


def trained_once(train: Callable[..., tokenizers.Tokenizer]) -> Callable[..., tokenizers.Tokenizer]:
    """Training takes time, and need not come to the same again: a copy of the first."""
    first = functools.cache(train)
    return lambda *args, **options: tokenizers.Tokenizer.from_str(first(*args, **options).to_str())


@trained_once
def word_pieces(special: tuple[str, ...]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=list(special), show_progress=False)
    backend.train_from_iterator(FIRST[:4] + SECOND, trainer)
    return backend


@trained_once
def byte_pairs(special: tuple[str, ...], add_prefix_space: bool = False) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": 350, "special_tokens": list(special), "initial_alphabet": alphabet, "show_progress": False}
    backend.train_from_iterator(FIRST[:4] + SECOND, trainers.BpeTrainer(**options))
    return backend


@trained_once
def unigrams(special: tuple[str, ...]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    options = {"vocab_size": 150, "special_tokens": list(special), "unk_token": "<unk>", "show_progress": False}
    backend.train_from_iterator(FIRST[:4] + SECOND, trainers.UnigramTrainer(**options))
    return backend


def model(backend: tokenizers.Tokenizer) -> dict:
    return json.loads(backend.to_str())["model"]


def surround(backend: tokenizers.Tokenizer, single: str, pair: str) -> tokenizers.Tokenizer:
    used = [(token, backend.token_to_id(token)) for token in sorted({*single.split()} - {"$A"})]
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=used)
    return backend


def write_vocabulary(folder: Path, backend: tokenizers.Tokenizer, config: dict | None) -> None:
    """vocab.txt, or vocab.json and merges.txt."""
    folder.mkdir(exist_ok=True)
    backend.model.save(str(folder))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))


def whole(backend: tokenizers.Tokenizer, **options) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, **options)


def bert(folder):
    BertTokenizer(vocab=model(word_pieces(BERTS))["vocab"]).save_pretrained(folder)


def bert_by_processing(folder):
    backend = word_pieces(BERTS)
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    whole(backend, **NAMED, **TYPED).save_pretrained(folder)


def bert_of_transformers_5(folder):
    bert_by_processing(folder)
    rewrite(folder, "TokenizersBackend")


def bert_of_transformers_4(folder):
    bert_by_processing(folder)
    rewrite(folder, "PreTrainedTokenizerFast")


def rewrite(folder: Path, tokenizer_class: str) -> None:
    """Name this class, and no model_input_names."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["model_input_names"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": tokenizer_class}))


def bert_with_sentences_of_one_type(folder):
    backend = surround(word_pieces(BERTS), "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]")
    whole(backend, **NAMED).save_pretrained(folder)


def distilbert(folder):
    DistilBertTokenizer(vocab=model(word_pieces(BERTS))["vocab"]).save_pretrained(folder)


def old_vocabulary(folder):  # of distilbert and electra on the hub
    write_vocabulary(folder, word_pieces(BERTS), {"do_lower_case": True, "model_max_length": 512})


def roberta(folder):
    learnt = model(byte_pairs(ROBERTAS))
    RobertaTokenizer(vocab=learnt["vocab"], merges=[tuple(pair) for pair in learnt["merges"]]).save_pretrained(folder)


def roberta_with_spaces(folder):
    learnt = model(byte_pairs(ROBERTAS, add_prefix_space=True))
    merges = [tuple(pair) for pair in learnt["merges"]]
    RobertaTokenizer(vocab=learnt["vocab"], merges=merges, add_prefix_space=True).save_pretrained(folder)


def roberta_by_template(folder):
    backend = surround(byte_pairs(ROBERTAS), "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    whole(backend, **ROBERTAS_NAMED).save_pretrained(folder)


def roberta_json_alone(folder):  # as on the hub: no class, no special tokens named
    roberta(folder)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 512}')


def merges(folder):
    write_vocabulary(folder, byte_pairs(ROBERTAS), None)


def merges_with_spaces(folder):
    settings = {"add_prefix_space": True, "tokenizer_class": "RobertaTokenizer", **ROBERTAS_NAMED}
    mask = {"content": "<mask>", "lstrip": True, "normalized": False, "special": True}
    write_vocabulary(folder, byte_pairs(ROBERTAS), {**settings, "mask_token": {**mask, "__type": "AddedToken"}})


def xlm_roberta(folder):
    XLMRobertaTokenizer(vocab=[tuple(piece) for piece in model(unigrams(ROBERTAS))["vocab"]]).save_pretrained(folder)


def camembert(folder):
    CamembertTokenizer(vocab=[tuple(piece) for piece in model(unigrams(ROBERTAS))["vocab"]]).save_pretrained(folder)


def camembert_by_template(folder):
    backend = surround(unigrams(ROBERTAS), "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    whole(backend, **ROBERTAS_NAMED).save_pretrained(folder)


MPNETS = (*ROBERTAS[:4], *BERTS, "<mask>")  # MPNet's vocabulary holds BERT's, too


def mpnet(folder):
    MPNetTokenizer(vocab=model(word_pieces(MPNETS))["vocab"]).save_pretrained(folder)


def mpnet_vocabulary(folder):
    write_vocabulary(folder, word_pieces(MPNETS), {"do_lower_case": True})


def mpnet_settings(folder):
    named = {**ROBERTAS_NAMED, "unk_token": "[UNK]"}
    write_vocabulary(folder, word_pieces(MPNETS), {"do_lower_case": True, "tokenizer_class": "MPNetTokenizer", **named})


def modernbert(folder):
    backend = surround(byte_pairs(BERTS), "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    backend.normalizer = normalizers.NFC()
    whole(backend, **NAMED, model_input_names=TYPELESS).save_pretrained(folder)


def roberta_of_two_types(folder):
    backend = surround(byte_pairs(ROBERTAS), "<s> $A </s>", "<s> $A </s> </s> $B:1 </s>:1")
    whole(backend, **ROBERTAS_NAMED, **TYPED).save_pretrained(folder)


def camembert_json_alone(folder):
    camembert(folder)
    (folder / "tokenizer_config.json").unlink()


def modernbert_without_inputs(folder):
    modernbert(folder)
    rewrite(folder, "PreTrainedTokenizerFast")


# name -> how its folder is written, model_type, separators between two texts, type of the second, whether the library
# finds all in its files, so that they are saved as they came
FAMILIES = {
    "bert": (bert, "bert", 1, 1, True),
    "bert by BertProcessing": (bert_by_processing, "bert", 1, 1, True),
    "bert of transformers 5": (bert_of_transformers_5, "bert", 1, 0, True),
    "bert of transformers 4": (bert_of_transformers_4, "bert", 1, 1, False),
    "bert of one type": (bert_with_sentences_of_one_type, "bert", 1, 0, True),
    "distilbert": (distilbert, "distilbert", 1, 0, True),
    "distilbert of a BertTokenizer": (bert, "distilbert", 1, 0, False),
    "distilbert by vocab.txt": (old_vocabulary, "distilbert", 1, 0, False),
    "electra by vocab.txt": (old_vocabulary, "electra", 1, 1, False),
    "roberta": (roberta, "roberta", 2, 0, True),
    "roberta with spaces": (roberta_with_spaces, "roberta", 2, 0, True),
    "roberta by template": (roberta_by_template, "roberta", 2, 0, True),
    "roberta of two types": (roberta_of_two_types, "roberta", 2, 1, True),
    "roberta by tokenizer.json": (roberta_json_alone, "roberta", 2, 0, False),
    "roberta by merges.txt": (merges, "roberta", 2, 0, False),
    "roberta by merges.txt with spaces": (merges_with_spaces, "roberta", 2, 0, True),
    "xlm-roberta": (xlm_roberta, "xlm-roberta", 2, 0, True),
    "camembert": (camembert, "camembert", 2, 0, True),
    "camembert by template": (camembert_by_template, "camembert", 2, 0, True),
    "camembert by tokenizer.json": (camembert_json_alone, "camembert", 2, 0, False),
    "mpnet": (mpnet, "mpnet", 2, 0, True),
    "mpnet by vocab.txt": (mpnet_vocabulary, "mpnet", 2, 0, False),
    "mpnet by settings": (mpnet_settings, "mpnet", 2, 0, True),
    "modernbert": (modernbert, "modernbert", 1, 0, True),
    "modernbert without inputs": (modernbert_without_inputs, "modernbert", 1, 0, False),
}


@pytest.fixture
def family(request, tmp_path):
    """A family's folder, and what is to be found in it."""
    write, model_type, *expected = FAMILIES[request.param]
    folder = tmp_path / "first"
    write(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder, *expected


def rows(tokenizer, first: list[str], second: list[str] | None, max_length: int) -> list[list[int]]:
    examples = tokenise(Split(first, second, [0] * len(first)), tokenizer, max_length)
    return [row.tolist() for row in examples.tokens.tensor_split(examples.offsets[1:])]


def assert_the_same_tokens(ours, theirs) -> None:
    """In sentences and pairs, whole and cut."""
    pairs = [(first, second) for first in FIRST for second in SECOND if second]
    first, second = [list(texts) for texts in zip(*pairs, strict=True)]
    assert rows(ours, FIRST, None, 99999) == theirs(FIRST)["input_ids"]
    assert rows(ours, first, second, 99999) == theirs(first, second)["input_ids"]
    assert rows(ours, FIRST, None, 9) == theirs(FIRST, truncation=True, max_length=9)["input_ids"]
    # an odd room's last token is the first text's here, and there the longer one's
    for room in (6, 14, 24):
        length = room + theirs.num_special_tokens_to_add(pair=True)
        expected = theirs(first, second, truncation="longest_first", max_length=length)["input_ids"]
        assert rows(ours, first, second, length) == expected


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_tokens_are_the_librarys(family):
    folder, separators, second_type, _ = family
    ours, theirs = load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(folder)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.template == Template(theirs.cls_token_id, theirs.sep_token_id, separators, second_type)
    assert ours.pad_token_id == theirs.pad_token_id
    assert_the_same_tokens(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_token_types_are_the_templates(family):
    folder, separators, second_type, _ = family
    tokenizer = load_tokenizer(str(folder))
    texts = [len(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)) for text in ("x", "naïve")]
    examples = tokenise(Split(["x", "x"], ["naïve", ""], [0, 0]), tokenizer, 99)
    types = examples.batch(torch.arange(2)).token_type_ids
    ones = second_type * (texts[1] + 1)
    width = texts[0] + texts[1] + 2 + separators
    assert types.tolist() == [[0] * (width - ones) + [1] * ones, [0] * width]
    assert bool((examples.segment_b_start < examples.lengths).any()) == bool(second_type)


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_what_is_saved_makes_the_same_tokens_beside_any_config(family, tmp_path):
    folder, _, second_type, as_they_came = family
    tokenizer, saved = load_tokenizer(str(folder)), tmp_path / "saved"
    tokenizer.save_pretrained(saved)
    files = {file.name: file.read_bytes() for file in saved.iterdir()}
    came = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "config.json"}
    assert (files == came) == as_they_came
    assert {**files, "tokenizer_config.json": b""} == {**came, "tokenizer_config.json": b""}
    for config in ((folder / "config.json").read_text(), '{"model_type": "bert"}'):
        (saved / "config.json").write_text(config)
        again, library = load_tokenizer(str(folder), str(saved)), AutoTokenizer.from_pretrained(saved)
        assert load_tokenizer(str(saved)).template == again.template == tokenizer.template
        assert_the_same_tokens(load_tokenizer(str(saved)), library)
        given = library("x", "x").get("token_type_ids")
        assert bool(given and 1 in given) == bool(second_type)
        assert as_they_came or second_type or given is None


def refusal(path, *others) -> str:
    with pytest.raises(InputError) as error:
        load_tokenizer(str(path), *map(str, others))
    assert "\n" not in str(error.value)
    return str(error.value)


TEMPLATES = {
    "no special tokens": ("$A", "$A $B", "makes first, and of a pair first second,"),
    "three": ("<s> $A </s>", "<s> $A </s> </s> </s> $B </s>", "</s> (2) </s> (2) </s> (2) second </s> (2),"),
    "no last": ("<s> $A", "<s> $A </s> $B", "makes <s> (0) first, and"),
    "within": ("<s> $A </s>", "<s> $A </s> <s> $B </s>", "</s> (2) <s> (0) second"),
    "second first": ("<s> $A </s>", "<s> $B </s> $A </s>", "of a pair <s> (0) second </s> (2) first </s> (2),"),
    "types": ("<s> $A </s>", "<s> $A:2 </s> $B </s>", "token types [0, 2, 0, 0, 0]; expected <s> first </s>, and"),
    "early types": ("<s> $A </s>", "<s> $A </s>:1 $B:1 </s>:1", "token types [0, 0, 1, 1, 1]"),
    "single type": ("<s>:1 $A:1 </s>:1", "<s> $A </s> $B </s>", "makes <s> (0) first"),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_other_templates_are_refused(tmp_path, case):
    *templates, reason = TEMPLATES[case]
    backend = byte_pairs(ROBERTAS)
    used = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing(*templates, special_tokens=used)
    whole(backend, **ROBERTAS_NAMED).save_pretrained(tmp_path)
    assert reason in refusal(tmp_path)


def test_a_template_of_another_vocabularys_ids_is_refused(tmp_path):
    backend = byte_pairs(ROBERTAS)
    backend.post_processor = processors.RobertaProcessing(("</s>", 102), ("<s>", 101))
    whole(backend, **ROBERTAS_NAMED).save_pretrained(tmp_path)
    assert "makes <s> (101) first </s> (102), and" in refusal(tmp_path)
    assert "where <s> is 0 and </s> 2" in refusal(tmp_path)


def test_checkpoints_that_are_used_together_have_the_same_template_and_pieces(tmp_path):
    def write(name, change):
        backend = change(byte_pairs(ROBERTAS))
        backend.post_processor = backend.post_processor or processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        whole(backend, **ROBERTAS_NAMED, **TYPED).save_pretrained(tmp_path / name)
        return tmp_path / name

    def forget_a_merge(backend):
        learnt = model(backend)
        backend.model = models.BPE(learnt["vocab"], [tuple(pair) for pair in learnt["merges"][:-1]])
        return backend

    def begin_with_a_space(backend):
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        return backend

    one = write("one", lambda backend: backend)
    other = write("template", lambda backend: surround(backend, "<s> $A </s>", "<s> $A </s> $B:1 </s>:1"))
    found = "{'cls_id': 0, 'sep_id': 2, 'separators': 1, 'second_type': 1}"
    expected = "{'cls_id': 0, 'sep_id': 2, 'separators': 2, 'second_type': 0}"
    line = f"{other}: the vocabulary of {one}, but template {found}; there it is {expected}"
    assert refusal(one, other) == line
    assert refusal(one, write("merges", forget_a_merge)).endswith("but other merges")
    assert "but pre_tokenizer {" in refusal(one, write("spaces", begin_with_a_space))


@pytest.mark.parametrize(
    ("whole", "vocabulary", "model_type"),
    [(roberta, merges, "roberta"), (mpnet, mpnet_vocabulary, "mpnet"), (distilbert, old_vocabulary, "distilbert")],
)
def test_checkpoints_of_other_files_may_make_the_same_tokens(tmp_path, whole, vocabulary, model_type):
    for write in (whole, vocabulary):
        write(tmp_path / write.__name__)
        (tmp_path / write.__name__ / "config.json").write_text(json.dumps({"model_type": model_type}))
    one, other = (str(tmp_path / write.__name__) for write in (whole, vocabulary))
    assert load_tokenizer(one, other).template == load_tokenizer(other, one).template


def test_tokens_of_another_template_are_another_entry_of_the_cache(tmp_path):
    write_task(tmp_path / "data", "rte")
    bert(tmp_path)
    for model_type, second_type in (("bert", 1), ("distilbert", 0), ("bert", 1)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        dev = load_examples("rte", str(tmp_path / "data"), "dev", load_tokenizer(str(tmp_path)), 30)
        assert (dev.segment_b_start < dev.lengths).all() == bool(second_type)


def test_a_model_of_one_token_type_reads_pairs_that_have_no_other(workplace):
    shutil.rmtree("teacher")
    roberta(Path("teacher"))
    labels = {0: "not_entailment", 1: "entailment"}
    PrunableBert(small_config(type_vocab_size=1, vocab_size=350, id2label=labels)).save_pretrained("teacher")
    run_pruning.main(["--model_path", "teacher", "--max_length", "40", "--use_cpu"])
    again = load_tokenizer("teacher", "outputs/prune/ft_rte/ckpt")
    assert again.template == Template(0, 2, 2, 0)


def test_pieces_of_other_scores_are_other_pieces(tmp_path):
    vocabulary = [tuple(piece) for piece in model(unigrams(ROBERTAS))["vocab"]]
    for name, factor in (("one", 1), ("other", 2)):
        XLMRobertaTokenizer(vocab=[(token, factor * score) for token, score in vocabulary]).save_pretrained(
            tmp_path / name
        )
    assert refusal(tmp_path / "one", tmp_path / "other").endswith("but other scores")


def test_merges_may_end_their_lines_as_on_windows(tmp_path):
    for name in ("one", "other"):
        merges(tmp_path / name)
        (tmp_path / name / "config.json").write_text('{"model_type": "roberta"}')
    path = tmp_path / "other" / "merges.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    assert load_tokenizer(one, other).get_vocab() == load_tokenizer(other).get_vocab()


def test_files_that_make_no_byte_pairs_are_refused(tmp_path):
    merges(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2TokenizerFast"}')
    assert "tokenizer class GPT2TokenizerFast, which vocab.json and merges.txt alone" in refusal(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": "yes"}')
    assert "add_prefix_space 'yes' of tokenizer_config.json: expected true or false" in refusal(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "merges.txt").write_text("#version: 0.2\nq \u4e00\n")
    assert f"{tmp_path}: no tokenizer: " in refusal(tmp_path)
    (tmp_path / "merges.txt").unlink()
    assert refusal(tmp_path).endswith("vocab.json without merges.txt; expected both, or tokenizer.json")


def test_vocab_json_and_settings_that_contradict_tokenizer_json_are_refused(tmp_path):
    roberta(tmp_path)
    (tmp_path / "vocab.json").write_text('{"<s>": 0, "<pad>": 1, "x": 2}')
    assert "in vocab.json token 2 is 'x', and '</s>' in tokenizer.json" in refusal(tmp_path)
    (tmp_path / "vocab.json").unlink()
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "add_prefix_space": True}))
    reason = "tokenizer_config.json has add_prefix_space True, tokenizer.json add_prefix_space False; expected the same"
    assert reason in refusal(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Isolated"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    load_tokenizer(str(tmp_path))
    state["pre_tokenizer"]["pretokenizers"].append(
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    )
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    assert reason in refusal(tmp_path)


def test_pieces_without_an_unknown_one_are_refused(tmp_path):
    backend = unigrams(ROBERTAS)
    backend.model = models.Unigram([tuple(piece) for piece in model(backend)["vocab"]], None)
    surround(backend, "<s> $A </s>", "<s> $A </s> </s> $B </s>").save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    assert "no tokenizer: Encountered an unknown token" in refusal(tmp_path)


def test_a_sentence_piece_model_asks_for_what_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"\x0a\x0e")
    (tmp_path / "config.json").write_text('{"model_type": "camembert"}')
    line = refusal(tmp_path)
    assert line.startswith(f"{tmp_path}: sentencepiece.bpe.model without tokenizer.json; expected that")
    assert "packages sentencepiece and protobuf, of which sentencepiece" in line
