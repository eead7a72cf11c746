"""A tokenizer's special tokens: their names, what they put around texts, and tokens beyond a vocabulary.

special = special_tokens({"tokenizer_class": "RobertaTokenizer"})    # <s>, </s>, <pad>, ...
template = read_template(path, backend, special, "RobertaTokenizer")    # <s> first </s></s> second </s>
"""

from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Encoding
from tokenizers.models import WordLevel
from tokenizers.processors import BertProcessing, RobertaProcessing

from utils.errors import InputError

BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ROBERTA = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}
UNNAMED = (None, "AutoTokenizer")  # tokenizer classes that say nothing
# tokenizer class -> its special tokens where the files name none; BERT's for all others
SPECIAL = {
    "RobertaTokenizer": ROBERTA,
    "XLMRobertaTokenizer": ROBERTA,
    "CamembertTokenizer": ROBERTA,
    "MPNetTokenizer": {**ROBERTA, "unk_token": "[UNK]"},
}


class Template(NamedTuple):
    """The special tokens around texts: cls first sep, or cls first sep second sep, with one or two sep in between."""

    cls_id: int
    sep_id: int
    separators: int  # between two texts
    second_type: int  # token type from the second text on; 0 if the model is given no types


def class_name(stated: dict[str, Any]) -> str | None:
    """The class that a tokenizer_config.json names, fast or not; None if it names none."""
    named = stated.get("tokenizer_class")
    return None if named in UNNAMED else str(named).removesuffix("Fast")


def special_tokens(stated: dict[str, Any]) -> dict[str, AddedToken]:
    """The special tokens by the library's names for them.

    Args:
        stated: tokenizer_config.json and special_tokens_map.json; the tokenizer class's tokens where they have none.

    Raises:
        ValueError: one is no text.
    """
    defaults = SPECIAL.get(class_name(stated), BERT)
    return {name: added_token(stated.get(name) or token) for name, token in defaults.items()}


def added_token(stated: Any, special: bool = True) -> AddedToken:
    """A token that is found in text before it is split, from its text or from an object of text and flags.

    Raises:
        ValueError: neither is there.
    """
    stated = {"content": stated} if isinstance(stated, str) else stated
    if not isinstance(stated, dict) or not isinstance(stated.get("content"), str):
        raise ValueError(f"found {stated!r}, expected a token's text")
    flags = {name: stated[name] for name in ("single_word", "lstrip", "rstrip", "normalized") if name in stated}
    return AddedToken(stated["content"], special=stated.get("special", special), **flags)


def add_tokens(backend: tokenizers.Tokenizer, path: str, by_text: dict[str, int], stated: dict[str, Any]) -> None:
    """Make a tokenizer know its special tokens, and those beyond its vocabulary in the order of their ids.

    Args:
        path: where it comes from, for what has to be said.
        by_text: ids by token, as added_tokens.json has them.
        stated: tokenizer_config.json and special_tokens_map.json.

    Raises:
        InputError: a token has another id in the vocabulary.
        ValueError: one is no text.
    """
    backend.add_special_tokens(
        [token for token in special_tokens(stated).values() if backend.token_to_id(token.content) is not None]
    )
    tokens = {index: added_token(text, special=False) for text, index in by_text.items()}
    for index, token in (stated.get("added_tokens_decoder") or {}).items():
        tokens[int(index)] = added_token(token, special=False)
    for index, token in sorted(tokens.items()):
        backend.add_tokens([token])
        if (found := backend.token_to_id(token.content)) != index:
            raise InputError(f"{path}: added token {token.content} has id {index}, and {found} by its vocabulary")
    more = stated.get("additional_special_tokens") or stated.get("extra_special_tokens") or []
    backend.add_special_tokens([added_token(token) for token in (more.values() if isinstance(more, dict) else more)])


def read_template(path: str, backend: tokenizers.Tokenizer, special: dict[str, str], named: str | None) -> Template:
    """What a tokenizer puts around texts; where it has no template of its own, that of its class, or BERT's.

    Args:
        path: where it comes from, for what has to be said.
        special: its special tokens by the library's names, all in its vocabulary.
        named: its class.

    Raises:
        InputError: it is none that Template describes.
    """
    cls, sep = special["cls_token"], special["sep_token"]
    ids = backend.token_to_id(cls), backend.token_to_id(sep)
    processing = RobertaProcessing if named in SPECIAL else BertProcessing
    one_word = tokenizers.Tokenizer(WordLevel({"word": 0}, unk_token="word"))  # shows the template, whatever the words
    one_word.post_processor = backend.post_processor or processing((sep, ids[1]), (cls, ids[0]))
    found = one_word.encode("word"), one_word.encode("word", "word")
    for separators, second_type in ((1, 1), (2, 0), (1, 0), (2, 1)):
        template = Template(*ids, separators, second_type)
        if [_layout(encoding) for encoding in found] == _layouts(template):
            return template
    single, pair = (" ".join(_names(encoding)) for encoding in found)
    raise InputError(
        f"{path}: tokenizer.json makes {single}, and of a pair {pair}, token types {found[1].type_ids}; expected "
        f"{cls} first {sep}, and {cls} first {sep} second {sep} with types 0 and 1, or {cls} first {sep} {sep} second "
        f"{sep} with types 0, where {cls} is {ids[0]} and {sep} {ids[1]}"
    )


def _layout(encoding: Encoding) -> list[tuple[int | None, int | None, int]]:
    """For each token the id if it is special, else None; the number of its text, else None; its token type."""
    rows = zip(encoding.ids, encoding.sequence_ids, encoding.type_ids, strict=True)
    return [(index if text is None else None, text, kind) for index, text, kind in rows]


def _layouts(template: Template) -> list[list[tuple[int | None, int | None, int]]]:
    """The layout of a sentence and of a pair, as a template has them."""
    cls, sep = (template.cls_id, None, 0), (template.sep_id, None, 0)
    first, second = (None, 0, 0), (None, 1, template.second_type)
    last = (template.sep_id, None, template.second_type)
    return [[cls, first, sep], [cls, first, *[sep] * template.separators, second, last]]


def _names(encoding: Encoding) -> list[str]:
    """The names of an encoding's tokens, for a message."""
    texts = {0: "first", 1: "second"}
    rows = zip(encoding.tokens, encoding.ids, encoding.sequence_ids, strict=True)
    return [texts.get(text, f"{token} ({index})") for token, index, text in rows]
