"""BERT's own tokenizer over a vocabulary: words at spaces and punctuation, then the longest pieces that it holds.

backend = word_piece("bert-base-cased", {"[PAD]": 0, ...}, {"do_lower_case": False}, {})
"""

import logging
import re
from typing import Any

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from utils.errors import InputError

logger = logging.getLogger("stark")
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
UNNAMED = (None, "AutoTokenizer")  # tokenizer classes that say nothing
WORD_PIECE = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", *UNNAMED)
CASED = 0.01  # share of tokens with upper-case letters; cased BERTs have a third, uncased ones none


def special_tokens(stated: dict[str, Any]) -> dict[str, AddedToken]:
    """The special tokens by the library's names for them, BERT's where tokenizer_config.json has none.

    Raises:
        ValueError: one is no text.
    """
    return {name: _added_token(stated.get(name) or token) for name, token in SPECIAL.items()}


def word_piece(
    path: str, vocabulary: dict[str, int], stated: dict[str, Any], added: dict[str, int]
) -> tokenizers.Tokenizer:
    """BERT's tokenizer over a vocabulary.

    Args:
        path: where it comes from, for what has to be said.
        vocabulary: ids by token, as vocab.txt numbers them.
        stated: tokenizer_config.json and special_tokens_map.json.
        added: ids by token, as added_tokens.json has them.

    Raises:
        InputError: the files ask for another tokenizer, or leave open whether it lower-cases.
        ValueError: a token is no text.
    """
    named = stated.get("tokenizer_class")
    if (named and str(named).removesuffix("Fast")) not in WORD_PIECE:
        raise InputError(
            f"{path}: tokenizer class {named} of tokenizer_config.json, which vocab.txt alone does not make; "
            "expected tokenizer.json, or BertTokenizer"
        )
    for key, value in (("do_basic_tokenize", True), ("never_split", [])):
        if stated.get(key) not in (None, value):
            raise InputError(f"{path}: {key} {stated[key]} of tokenizer_config.json takes a tokenizer.json")
    special, lower_case = special_tokens(stated), stated.get("do_lower_case")
    backend = tokenizers.Tokenizer(WordPiece(vocabulary, unk_token=special["unk_token"].content))
    backend.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=stated.get("tokenize_chinese_chars") is not False,
        strip_accents=stated.get("strip_accents"),
        lowercase=not _is_cased(path, vocabulary) if lower_case is None else lower_case,
    )
    backend.pre_tokenizer = BertPreTokenizer()
    backend.add_special_tokens([token for token in special.values() if token.content in vocabulary])
    _add_tokens(backend, path, added, stated)
    return backend


def _added_token(stated: Any, special: bool = True) -> AddedToken:
    """A token that is found in text before it is split, from its text or from an object of text and flags."""
    stated = {"content": stated} if isinstance(stated, str) else stated
    if not isinstance(stated, dict) or not isinstance(stated.get("content"), str):
        raise ValueError(f"found {stated!r}, expected a token's text")
    flags = {name: stated[name] for name in ("single_word", "lstrip", "rstrip", "normalized") if name in stated}
    return AddedToken(stated["content"], special=stated.get("special", special), **flags)


def _is_cased(path: str, vocabulary: dict[str, int]) -> bool:
    """Whether tokens have upper-case letters, apart from those in brackets as [CLS]; a line of log says so."""
    words = [token for token in vocabulary if not re.fullmatch(r"\[.*\]|<.*>", token)]
    upper = [token for token in words if token != token.lower()]
    if 0 < len(upper) < CASED * len(words):
        raise InputError(
            f"{path}: {len(upper)} of {len(words)} tokens of vocab.txt have upper-case letters ({upper[0]}), neither a "
            "cased vocabulary nor an uncased one; expected do_lower_case true or false in tokenizer_config.json"
        )
    taken = "cased, text is kept as it is" if upper else "uncased, text is lower-cased"
    count = f"{len(upper)} of {len(words)} tokens have upper-case letters"
    logger.info("%s: no do_lower_case in tokenizer_config.json; by vocab.txt it is %s: %s", path, taken, count)
    return bool(upper)


def _add_tokens(backend: tokenizers.Tokenizer, path: str, by_text: dict[str, int], stated: dict[str, Any]) -> None:
    """Tokens beyond vocab.txt, from added_tokens.json and tokenizer_config.json, in the order of their ids."""
    tokens = {index: _added_token(text, special=False) for text, index in by_text.items()}
    for index, token in (stated.get("added_tokens_decoder") or {}).items():
        tokens[int(index)] = _added_token(token, special=False)
    for index, token in sorted(tokens.items()):
        backend.add_tokens([token])
        if (found := backend.token_to_id(token.content)) != index:
            raise InputError(f"{path}: added token {token.content} has id {index}, and {found} by vocab.txt")
    more = stated.get("additional_special_tokens") or stated.get("extra_special_tokens") or []
    backend.add_special_tokens([_added_token(token) for token in (more.values() if isinstance(more, dict) else more)])
