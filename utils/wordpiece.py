"""BERT's own tokenizer over a vocabulary: words at spaces and punctuation, then the longest pieces that it holds.

backend = word_piece("bert-base-cased", {"[PAD]": 0, ...}, {"do_lower_case": False}, {})
"""

import logging
import re
from typing import Any

import tokenizers
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from utils.errors import InputError
from utils.special_tokens import add_tokens, class_name, special_tokens

logger = logging.getLogger("stark")
CLASSES = (None, "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "MPNetTokenizer")
CASED = 0.01  # share of tokens with upper-case letters; cased BERTs have a third, uncased ones none


def word_piece(
    path: str, vocabulary: dict[str, int], stated: dict[str, Any], added: dict[str, int]
) -> tokenizers.Tokenizer:
    """BERT's tokenizer over a vocabulary.

    Args:
        path: where it comes from, for what has to be said.
        vocabulary: ids by token, as vocab.txt numbers them.
        stated: tokenizer_config.json and special_tokens_map.json, with the tokenizer's class.
        added: ids by token, as added_tokens.json has them.

    Raises:
        InputError: the files ask for another tokenizer, or leave open whether it lower-cases.
        ValueError: a token is no text.
    """
    if class_name(stated) not in CLASSES:
        raise InputError(
            f"{path}: tokenizer class {stated['tokenizer_class']}, which vocab.txt alone does not make; expected "
            "tokenizer.json, or BertTokenizer in tokenizer_config.json"
        )
    for key, value in (("do_basic_tokenize", True), ("never_split", [])):
        if stated.get(key) not in (None, value):
            raise InputError(f"{path}: {key} {stated[key]} of tokenizer_config.json takes a tokenizer.json")
    lower_case = stated.get("do_lower_case")
    backend = tokenizers.Tokenizer(WordPiece(vocabulary, unk_token=special_tokens(stated)["unk_token"].content))
    backend.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=stated.get("tokenize_chinese_chars") is not False,
        strip_accents=stated.get("strip_accents"),
        lowercase=not _is_cased(path, vocabulary) if lower_case is None else lower_case,
    )
    backend.pre_tokenizer = BertPreTokenizer()
    add_tokens(backend, path, added, stated)
    return backend


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
