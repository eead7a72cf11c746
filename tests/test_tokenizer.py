"""Tokens are those that a checkpoint's own files make, or the files are refused in one line."""

import copy
import json
import re
from pathlib import Path

import pytest
from conftest import VOCABULARY, refused
from transformers import AutoTokenizer

import run_pruning
from utils.batches import tokenise
from utils.errors import InputError
from utils.readers import Split
from utils.tokenizer import load_tokenizer

WORDS = ["The", "the", "caf", "##é", "cafe", "café", "Anna", "anna", "run", "##ning", "中", "文", "!", "x"]
CASED = [*VOCABULARY[:5], "[unused1]", *WORDS]
UNCASED = [token for token in CASED if token == token.lower() or token.startswith("[")]
TEXTS = [
    "The café, Anna! running",
    "CAFE\u0301 Ünlü 中文x",
    "a\x00b\x01 the\u200bre\ufffd\u00a0the\u2028the",
    f"{'x' * 100} {'x' * 101}",
    "[SEP] the [MASK] [unused1] [PAD]",
    "",
    " \t ",
]
UNKNOWN = {"__type": "AddedToken", "content": "[UNK]", "single_word": False, "lstrip": False, "rstrip": False}
UNKNOWN |= {"normalized": False}


def write(folder: Path, tokens: list[str] | None, **files) -> str:
    """A folder of vocab.txt and of these JSON files, or of their text, as AutoTokenizer takes it, too; its path."""
    folder.mkdir(exist_ok=True)
    if tokens is not None:
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    for name, content in {"config": {"model_type": "bert"}, **files}.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


def ids(tokenizer) -> list[list[int]]:
    """Of all texts, without special tokens around them, by our tokenizer or the library's."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch(TEXTS, add_special_tokens=False)]


def tokens(path: str, text: str) -> list[str]:
    return load_tokenizer(path).backend_tokenizer.encode(text, add_special_tokens=False).tokens


def refusal(path: str, *others: str) -> str:
    with pytest.raises(InputError) as error:
        load_tokenizer(path, *others)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True, "tokenizer_class": "BertTokenizerFast"},
        {"do_lower_case": True, "tokenize_chinese_chars": False, "tokenizer_class": "DistilBertTokenizer"},
        {"do_lower_case": False, "additional_special_tokens": ["[new]"], "unk_token": UNKNOWN},
        {"do_lower_case": False, "added_tokens_decoder": {"20": {"content": "[new]", "special": True}}},
    ],
    ids=str,
)
def test_a_vocabularys_tokens_are_the_librarys(tmp_path, settings):
    path = write(tmp_path, CASED, tokenizer_config=settings)
    ours, theirs = load_tokenizer(path), AutoTokenizer.from_pretrained(path)
    assert ids(ours) == ids(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    for name in ("pad_token_id", "cls_token_id", "sep_token_id"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_a_folder_that_the_library_saved_makes_the_same_tokens(tmp_path):
    path = write(tmp_path / "first", CASED, tokenizer_config={"do_lower_case": False})
    AutoTokenizer.from_pretrained(path).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").is_file()
    assert ids(load_tokenizer(str(tmp_path / "again"))) == ids(load_tokenizer(path))


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [(CASED, ["The", "café", "Anna"]), (UNCASED, ["the", "cafe", "anna"])],
    ids=["cased", "uncased"],
)
@pytest.mark.parametrize("files", [{}, {"tokenizer_config": {"model_max_length": 512}}], ids=["alone", "beside"])
def test_case_follows_from_the_vocabulary_where_nothing_says_it(tmp_path, vocabulary, expected, files, caplog):
    path = write(tmp_path / "first", vocabulary, **files)
    with caplog.at_level("INFO", logger="stark"):
        assert tokens(path, "The café Anna") == expected
    count = sum(token != token.lower() for token in vocabulary if not token.startswith("["))
    kind = "cased, text is kept as it is" if count else "uncased, text is lower-cased"
    [line] = caplog.messages
    assert line.endswith(f"it is {kind}: {count} of {len(vocabulary) - 6} tokens have upper-case letters")
    # and is said in what is saved, to the library, too
    saved = write(tmp_path / "saved", None)
    load_tokenizer(path).save_pretrained(saved)
    assert ids(AutoTokenizer.from_pretrained(saved)) == ids(load_tokenizer(path))
    caplog.clear()
    assert ids(load_tokenizer(saved)) == ids(AutoTokenizer.from_pretrained(saved))
    assert not caplog.messages


def test_a_vocabulary_that_is_neither_cased_nor_uncased_is_not_guessed(tmp_path):
    path = write(tmp_path, [*UNCASED, *(f"q{index}" for index in range(200)), "DNA", "[Special]", "<S>"])
    assert "1 of 213 tokens of vocab.txt have upper-case letters (DNA)" in refusal(path)
    write(tmp_path, None, tokenizer_config={"do_lower_case": True})
    assert tokens(path, "DNA Anna") == ["[UNK]", "anna"]


def test_a_tokenizers_files_are_saved_as_they_came(tmp_path):
    files = {
        "tokenizer_config": '{"do_lower_case":true,   "tokenizer_class":"BertTokenizer"}',
        "special_tokens_map": '{"cls_token":  "[CLS]"}',
        "added_tokens": '{"[new]":  19}',
    }
    path = write(tmp_path / "first", UNCASED + ["y"] * (19 - len(UNCASED)), **files)
    load_tokenizer(path).save_pretrained(tmp_path / "saved")
    saved = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
    assert saved == {name: Path(path, name).read_bytes() for name in ("vocab.txt", *(f"{name}.json" for name in files))}


def whole(tokens: list[str], **changes) -> dict:
    """A tokenizer.json of this vocabulary; parts of it are changed, `model` key by key."""
    special = [
        {"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for index, token in enumerate(tokens[:5])
    ]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    model |= {"max_input_chars_per_word": 100, "vocab": {token: index for index, token in enumerate(tokens)}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        | {"strip_accents": None, "lowercase": False},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        **changes,
        "model": {**model, **changes.get("model", {})},
    }


OWN = [
    ({"normalizer": {"type": "NFC"}}, "cafe\u0301 Anna", ["café", "Anna"]),
    ({"normalizer": {"type": "Replace", "pattern": {"String": "q"}, "content": "x"}}, "q! Anna", ["x", "!", "Anna"]),
    ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, "x! x", ["[UNK]", "x"]),
    ({"model": {"max_input_chars_per_word": 3}}, "running the", ["[UNK]", "the"]),
    ({"model": {"continuing_subword_prefix": "r"}}, "xun", ["x", "run"]),
    ({"model": {"continuing_subword_prefix": ""}}, "xx!", ["x", "x", "!"]),
]


@pytest.mark.parametrize(
    "files", [{}, {"tokenizer_config": {"tokenizer_class": "BertTokenizer"}}], ids=["alone", "named"]
)
@pytest.mark.parametrize(("changes", "text", "expected"), OWN, ids=[str(changes) for changes, _, _ in OWN])
def test_tokenizer_json_is_taken_whole(tmp_path, changes, text, expected, files):
    path = write(tmp_path / "first", CASED, tokenizer=whole(CASED, **changes), **files)
    assert tokens(path, text) == expected
    load_tokenizer(path).save_pretrained(tmp_path / "saved")
    assert tokens(str(tmp_path / "saved"), text) == expected
    if not files:  # no class is named, so that the library can be told to take it whole, too
        library = AutoTokenizer.from_pretrained(write(tmp_path / "saved", None))
        assert library.tokenize(text) == expected
        assert list(library("x", "x")) == ["input_ids", "token_type_ids", "attention_mask"]


OTHERWISE = {"clean_text": True, "handle_chinese_chars": True, "lowercase": False}
REFUSED = {
    "japanese": (
        {"tokenizer_config": {"tokenizer_class": "BertJapaneseTokenizer"}},
        "class BertJapaneseTokenizer, which vocab.txt",
    ),
    "japanese by config.json": (
        {"config": {"tokenizer_class": "BertJapaneseTokenizer"}},
        "class BertJapaneseTokenizer, which vocab.txt",
    ),
    "needs a package": ({"tokenizer_config": {"tokenizer_class": "T5Tokenizer"}}, "class T5Tokenizer, which vocab.txt"),
    "finds no vocabulary": (
        {"tokenizer_config": {"tokenizer_class": "RobertaTokenizer"}},
        "class RobertaTokenizer, which vocab.txt",
    ),
    "only whole": ({"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"}}, "expected tokenizer.json"),
    "no splitting": ({"tokenizer_config": {"do_basic_tokenize": False}}, "do_basic_tokenize False"),
    "case as text": ({"tokenizer_config": {"do_lower_case": "false"}}, "do_lower_case 'false' of"),
    "a list": ({"tokenizer_config": []}, "tokenizer_config.json: expected a JSON object"),
    "half a file": ({"tokenizer_config": "{"}, "tokenizer_config.json: not a JSON file: "),
    "token as number": ({"special_tokens_map": {"cls_token": 5}}, "found 5, expected a token's text"),
    "added elsewhere": ({"added_tokens": {"[new]": 99}}, "added token [new] has id 99, and 20 by its vocabulary"),
    "another [CLS]": (
        {"tokenizer_config": {"cls_token": "<s>"}},
        "no <s> among the tokenizer's 20 tokens, the first are",
    ),
    "no tokenizer": ({"tokenizer": "{}"}, "tokenizer.json: no tokenizer: "),
    "pointer": ({"tokenizer": "version https://git-lfs.github.com/spec/v1\n"}, "tokenizer.json: a git-lfs pointer"),
    "vocabularies": ({"tokenizer": whole(CASED[::-1])}, "in vocab.txt token 0 is '[PAD]', and 'x' in tokenizer.json"),
    "cases": (
        {"tokenizer": whole(CASED), "tokenizer_config": {"do_lower_case": True}},
        "tokenizer_config.json has do_lower_case True, tokenizer.json lowercase False; expected the same",
    ),
    "accents": (
        {
            "tokenizer": whole(CASED, normalizer={"type": "BertNormalizer", "strip_accents": True, **OTHERWISE}),
            "tokenizer_config": {"strip_accents": False},
        },
        "tokenizer_config.json has strip_accents False, tokenizer.json strip_accents True; expected the same",
    ),
    "characters": (
        {"tokenizer": whole(CASED), "tokenizer_config": {"tokenize_chinese_chars": False}},
        "json has tokenize_chinese_chars False, tokenizer.json handle_chinese_chars True; expected the same",
    ),
    "unknown": ({"tokenizer": whole(CASED, model={"unk_token": "<unk>"})}, "no <unk> among the tokenizer's 20 tokens"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_tokenizer_that_would_make_other_tokens_is_refused(tmp_path, case):
    files, reason = REFUSED[case]
    line = refusal(write(tmp_path, CASED, **files))
    assert line.startswith(str(tmp_path))
    assert reason in line


def test_a_vocabulary_of_special_tokens_only_is_refused(tmp_path):
    assert "5 special tokens and no words" in refusal(write(tmp_path, CASED[:5]))
    # as the library saves one that it has not found the vocabulary of
    (tmp_path / "vocab.txt").unlink()
    assert "5 special tokens and no words" in refusal(write(tmp_path, None, tokenizer=whole(CASED[:5])))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"no \[PAD\] among the tokenizer's 0 tokens"),
        ("[PAD]\n[UNK]\nn\u00e9".encode("latin-1"), r"vocab.txt: not UTF-8: .*byte 0xe9"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"vocab.txt: a git-lfs pointer, .*git lfs pull"),
        ("\n".join(VOCABULARY).replace("[UNK]", "unk").encode(), r"no \[UNK\] among the tokenizer's 45 tokens"),
        (None, r"neither vocab.txt nor tokenizer.json"),
    ],
    ids=["empty", "latin-1", "pointer", "no [UNK]", "absent"],
)
def test_a_vocabulary_that_is_none_stops_a_run_before_it_writes(workplace, capsys, content, reason):
    (workplace / "teacher" / "vocab.txt").unlink()
    if content is not None:
        (workplace / "teacher" / "vocab.txt").write_bytes(content)
    line = refused(run_pruning, capsys, "--model_path", "teacher", "--max_length", "40", "--use_cpu")
    assert line.startswith("error: teacher")
    assert re.search(reason, line)


def test_a_class_that_says_nothing_is_berts_and_saved_as_such(tmp_path):
    path = write(
        tmp_path / "first", CASED, tokenizer_config={"tokenizer_class": "AutoTokenizer", "do_lower_case": False}
    )
    assert tokens(path, "Anna") == ["Anna"]
    load_tokenizer(path).save_pretrained(write(tmp_path / "saved", None))
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").tokenize("Anna") == ["Anna"]


def test_lines_may_end_as_on_windows(tmp_path):
    path = write(tmp_path, CASED, tokenizer_config={"do_lower_case": False})
    expected = load_tokenizer(path).get_vocab()
    (tmp_path / "vocab.txt").write_bytes((tmp_path / "vocab.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert load_tokenizer(path).get_vocab() == expected


def test_checkpoints_that_are_used_together_make_the_same_tokens(tmp_path):
    paths = [write(tmp_path / name, CASED, tokenizer_config={"do_lower_case": False}) for name in ("one", "two")]
    load_tokenizer(*paths)
    write(tmp_path / "two", [*CASED[:-1], "y"])
    assert refusal(*paths) == (
        f"{paths[1]}: another vocabulary (20 tokens) than that of {paths[0]} (20): token 19 is 'y', and 'x' there"
    )
    write(tmp_path / "two", [*CASED, "y"])
    assert refusal(*paths).endswith("(21 tokens) than that of " + f"{paths[0]} (20): token 20 is 'y', and None there")
    write(tmp_path / "two", CASED, tokenizer_config={"do_lower_case": True})
    assert f"{paths[1]}: the vocabulary of {paths[0]}, but normalizer {{" in refusal(*paths)


def test_a_name_that_is_not_in_the_hubs_cache_is_refused():
    assert refusal("google/no-such-bert") == (
        "google/no-such-bert: no such folder, and no such name on the hub or in its cache, expected a tokenizer"
    )


def test_a_tokenizer_that_was_saved_cutting_and_padding_is_taken_without(bert_folder):
    wanted = load_tokenizer(str(bert_folder))
    backend = copy.deepcopy(wanted.backend_tokenizer)
    backend.enable_truncation(4)
    backend.enable_padding(length=30)
    backend.save(str(bert_folder / "tokenizer.json"))
    examples = [
        tokenise(Split(["w1 w2 w3 w4"], ["w5"], [0]), t, 40) for t in (wanted, load_tokenizer(str(bert_folder)))
    ]
    assert examples[0].tokens.tolist() == examples[1].tokens.tolist()
