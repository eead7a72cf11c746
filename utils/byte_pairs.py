"""RoBERTa's own tokenizer over a vocabulary and its merges: byte-level byte-pair encoding.

backend = byte_pairs("roberta-base", {"<s>": 0, ...}, "#version: 0.2\\nĠ t\\n...", {"add_prefix_space": False}, {})
"""

from typing import Any

import tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from utils.errors import InputError
from utils.special_tokens import add_tokens, class_name

CLASSES = (None, "RobertaTokenizer")


def byte_pairs(
    path: str, vocabulary: dict[str, int], merges: str, stated: dict[str, Any], added: dict[str, int]
) -> tokenizers.Tokenizer:
    """RoBERTa's tokenizer over a vocabulary and its merges.

    Args:
        path: where it comes from, for what has to be said.
        vocabulary: ids by token, as vocab.json has them.
        merges: merges.txt, a pair a line.
        stated: tokenizer_config.json and special_tokens_map.json, with the tokenizer's class.
        added: ids by token, as added_tokens.json has them.

    Raises:
        InputError: the files ask for another tokenizer.
        Exception: the vocabulary does not hold what merges make, in the tokenizers library's words.
    """
    if class_name(stated) not in CLASSES:
        raise InputError(
            f"{path}: tokenizer class {stated['tokenizer_class']}, which vocab.json and merges.txt alone do not make; "
            "expected tokenizer.json, or RobertaTokenizer in tokenizer_config.json"
        )
    lines = [line.rstrip("\r") for line in merges.split("\n")]
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    backend = tokenizers.Tokenizer(BPE(vocabulary, pairs, continuing_subword_prefix="", end_of_word_suffix=""))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=stated.get("add_prefix_space") is True)
    add_tokens(backend, path, added, stated)
    return backend
