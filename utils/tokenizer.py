"""The tokenizer of a checkpoint: what its own files say, checked, and saved as they came.

    tokenizer = load_tokenizer("outputs/finetune/ft_rte/ckpt")
    tokenizer.save_pretrained(folder)

tokenizer.json is taken whole. vocab.txt alone is BERT's WordPiece with the settings of tokenizer_config.json; whether
it lower-cases follows from the vocabulary where no file says it.
"""

import copy
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from utils.errors import InputError
from utils.wordpiece import UNNAMED, special_tokens, word_piece

FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# true or false in tokenizer_config.json -> the same in a BertNormalizer of tokenizer.json
SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
LONGEST_REASON = 300  # characters of a library's message


@dataclass(frozen=True)
class Tokenizer:
    """A checkpoint's tokenizer, under the names of the transformers library."""

    backend_tokenizer: tokenizers.Tokenizer  # text to ids; what surrounds them is added by utils/batches.py
    special_tokens_map: dict[str, str]  # pad_token -> [PAD] and the like
    files: dict[str, bytes]  # name -> content, as they came; tokenizer_config.json with what they left open

    @property
    def pad_token_id(self) -> int:
        """The id that fills up a batch."""
        return self.backend_tokenizer.token_to_id(self.special_tokens_map["pad_token"])

    @property
    def cls_token_id(self) -> int:
        """The id that begins an example."""
        return self.backend_tokenizer.token_to_id(self.special_tokens_map["cls_token"])

    @property
    def sep_token_id(self) -> int:
        """The id that ends a sentence."""
        return self.backend_tokenizer.token_to_id(self.special_tokens_map["sep_token"])

    def get_vocab(self) -> dict[str, int]:
        """Ids by token."""
        return self.backend_tokenizer.get_vocab()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the files into a folder, from where load_tokenizer and AutoTokenizer read them."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            Path(folder, name).write_bytes(content)


def load_tokenizer(path: str, *others: str) -> Tokenizer:
    """The tokenizer saved with a checkpoint, which must make the tokens of these other checkpoints, too.

    Args:
        path, others: folders, or names on the hub.

    Raises:
        InputError: a folder holds no tokenizer, one that cannot be read or contradicts itself, or another one.
    """
    try:
        tokenizer = _read(path)
        _check(tokenizer, path)
    except InputError:
        raise
    except Exception as error:  # of files that hold anything
        raise InputError(f"{path}: no tokenizer: {_reason(error)}") from error
    for other in sorted(set(others) - {path}):
        _check_same(tokenizer, path, load_tokenizer(other), other)
    return tokenizer


def _read(path: str) -> Tokenizer:
    """The tokenizer that the files of a folder or hub name make."""
    files = _read_files(path)
    config = _parse(path, files, "tokenizer_config.json")
    for key in SETTINGS:
        if not isinstance(config.get(key), bool | None):
            raise InputError(f"{path}: {key} {config[key]!r} of tokenizer_config.json: expected true or false")
    stated = {**_parse(path, files, "special_tokens_map.json"), **config}
    special = {name: token.content for name, token in special_tokens(stated).items()}
    if "tokenizer.json" in files:
        backend = _backend(path, files)
        _check_contradictions(backend, path, files, config)
        # without a class of its own, the library would take BERT's and leave out what tokenizer.json says
        present = {name: token for name, token in special.items() if backend.token_to_id(token) is not None}
        whole = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": INPUTS, **present}
        decided = whole if config.get("tokenizer_class") in UNNAMED else {}
    elif "vocab.txt" in files:
        backend = word_piece(path, _vocabulary(path, files), stated, _parse(path, files, "added_tokens.json"))
        decided = {"tokenizer_class": "BertTokenizer", "do_lower_case": backend.normalizer.lowercase}
    else:
        raise InputError(f"{path}: neither vocab.txt nor tokenizer.json, expected a tokenizer")
    if undecided := {key: value for key, value in decided.items() if config.get(key) in UNNAMED}:
        files["tokenizer_config.json"] = json.dumps({**config, **undecided}, indent=2).encode()
    return Tokenizer(backend, special, files)


def _read_files(path: str) -> dict[str, bytes]:
    """The content of those of FILES that a folder or hub name has."""
    found = {}
    for name in FILES:
        file = Path(path, name)
        if not Path(path).is_dir():
            try:
                file = Path(hf_hub_download(path, name))
            except EntryNotFoundError:  # not there, or not in the cache, and the hub cannot be asked
                continue
        if file.is_file():
            found[name] = file.read_bytes()
    return found


def _text(path: str, files: dict[str, bytes], name: str) -> str:
    """A file's text."""
    if files[name].startswith(b"version https://git-lfs"):
        raise InputError(f"{Path(path, name)}: a git-lfs pointer, not the file itself; git lfs pull fetches it")
    try:
        return files[name].decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{Path(path, name)}: not UTF-8: {error}") from error


def _backend(path: str, files: dict[str, bytes]) -> tokenizers.Tokenizer:
    """What tokenizer.json describes."""
    text = _text(path, files, "tokenizer.json")
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library has no other
        raise InputError(f"{Path(path, 'tokenizer.json')}: no tokenizer: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """A library's message in one line."""
    return " ".join(str(error).split())[:LONGEST_REASON]


def _parse(path: str, files: dict[str, bytes], name: str) -> dict[str, Any]:
    """A JSON file's content; {} if it is not there."""
    try:
        content = json.loads(_text(path, files, name)) if name in files else {}
    except json.JSONDecodeError as error:
        raise InputError(f"{Path(path, name)}: not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{Path(path, name)}: expected a JSON object")
    return content


def _vocabulary(path: str, files: dict[str, bytes]) -> dict[str, int]:
    """Ids by token of vocab.txt: its line numbers from 0."""
    return {line.rstrip(): index for index, line in enumerate(io.StringIO(_text(path, files, "vocab.txt")))}


def _check_contradictions(
    backend: tokenizers.Tokenizer, path: str, files: dict[str, bytes], config: dict[str, Any]
) -> None:
    """vocab.txt and tokenizer_config.json must agree with tokenizer.json."""
    if "vocab.txt" in files:
        difference = _first_difference(_vocabulary(path, files), backend.get_vocab(with_added_tokens=False))
        if difference:
            raise InputError(f"{path}: in vocab.txt {difference} in tokenizer.json; one of them is another model's")
    normalizer = json.loads(backend.to_str())["normalizer"] or {}
    for key, name in SETTINGS.items():
        said, found = config.get(key), normalizer.get(name)
        if normalizer.get("type") == "BertNormalizer" and said is not None and found not in (None, said):
            raise InputError(
                f"{path}: tokenizer_config.json has {key} {said}, tokenizer.json {name} {found}; expected the same"
            )


def _check(tokenizer: Tokenizer, path: str) -> None:
    """Special tokens and words must be there, and pairs be put together as BERT does."""
    backend, vocabulary = copy.deepcopy(tokenizer.backend_tokenizer), tokenizer.get_vocab()
    needed = [token for name, token in tokenizer.special_tokens_map.items() if name != "mask_token"]
    for token in (*needed, getattr(backend.model, "unk_token", None)):
        if token is not None and token not in vocabulary:
            first = sorted(vocabulary, key=vocabulary.get)[:3]
            raise InputError(
                f"{path}: no {token} among the tokenizer's {len(vocabulary)} tokens, the first are {first}"
            )
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    if not set(backend.get_vocab(with_added_tokens=False)) - added:
        raise InputError(f"{path}: a tokenizer of {len(vocabulary)} special tokens and no words; expected a vocabulary")
    if backend.post_processor is None:
        return
    backend.no_truncation()
    backend.no_padding()
    text, pair = backend.encode("a", add_special_tokens=False).ids, backend.encode("a", "a")
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    types = [0] * (len(text) + 2) + [1] * (len(text) + 1)
    if (pair.ids, pair.type_ids) != ([cls, *text, sep, *text, sep], types):
        raise InputError(
            f"{path}: tokenizer.json makes a pair into {' '.join(pair.tokens)}, token types {pair.type_ids}; expected "
            "[CLS] first [SEP] second [SEP] with types 0 and 1"
        )


def _first_difference(ours: dict[str, int], theirs: dict[str, int]) -> str:
    """The first id whose tokens differ, in words; empty if none do."""
    by_id, their_by_id = ({index: token for token, index in one.items()} for one in (ours, theirs))
    for index in sorted({*by_id, *their_by_id}):
        if by_id.get(index) != their_by_id.get(index):
            return f"token {index} is {by_id.get(index)!r}, and {their_by_id.get(index)!r}"
    return ""


def _check_same(ours: Tokenizer, path: str, theirs: Tokenizer, other: str) -> None:
    """Two checkpoints must make the same tokens of the same text."""
    if difference := _first_difference(theirs.get_vocab(), ours.get_vocab()):
        counts = [len(tokenizer.get_vocab()) for tokenizer in (theirs, ours)]
        raise InputError(
            f"{other}: another vocabulary ({counts[0]} tokens) than that of {path} ({counts[1]}): {difference} there"
        )
    for part in ("normalizer", "pre_tokenizer", "model"):
        found, expected = (_settings(tokenizer, part) for tokenizer in (theirs, ours))
        if found != expected:
            raise InputError(f"{other}: the vocabulary of {path}, but {part} {found}; there it is {expected}")


def _settings(tokenizer: Tokenizer, part: str) -> dict[str, Any]:
    """How a part of a tokenizer works, apart from its vocabulary."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())[part] or {}
    return {key: value for key, value in state.items() if key not in ("vocab", "merges")}
