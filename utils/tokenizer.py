"""The tokenizer of a checkpoint: what its own files say, checked, and saved as they came.

    tokenizer = load_tokenizer("outputs/finetune/ft_rte/ckpt")
    tokenizer.save_pretrained(folder)

tokenizer.json is taken whole. vocab.txt alone is BERT's WordPiece with the settings of tokenizer_config.json; whether
it lower-cases follows from the vocabulary where no file says it. vocab.json and merges.txt are RoBERTa's byte pairs.
Of a SentencePiece model the transformers library makes a tokenizer.json.
"""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from utils.byte_pairs import byte_pairs
from utils.errors import InputError
from utils.special_tokens import UNNAMED, Template, class_name, read_template, special_tokens
from utils.tokenizer_files import TokenizerFiles, find, read_files
from utils.wordpiece import word_piece

# true or false in tokenizer_config.json -> of what in tokenizer.json, and its name there
SETTINGS = {
    "do_lower_case": ("BertNormalizer", "lowercase"),
    "strip_accents": ("BertNormalizer", "strip_accents"),
    "tokenize_chinese_chars": ("BertNormalizer", "handle_chinese_chars"),
    "add_prefix_space": ("ByteLevel", "add_prefix_space"),
}
# model_type of config.json -> the tokenizer's class where no file names one; BERT's for all others
CLASSES = {
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "mpnet": "MPNetTokenizer",
}
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
TYPELESS_INPUTS = ["input_ids", "attention_mask"]
# a model_type, or a tokenizer's class, of models that take no token types, whatever the template has
TYPELESS = {"distilbert", "modernbert", "mpnet", "DistilBertTokenizer"}
# classes of any tokenizer.json, of transformers 4 and 5; without model_input_names one takes types, the other none
ANY_TOKENIZER, ANY_TOKENIZER_5 = "PreTrainedTokenizerFast", "TokenizersBackend"
SENTENCE_PIECES = ("sentencepiece.bpe.model", "spiece.model")
RARE = "\U00013000 \ue000"  # a hieroglyph and a private letter: a model without an unknown token fails at them
LONGEST_REASON = 300  # characters of a library's message


@dataclass(frozen=True)
class Tokenizer:
    """A checkpoint's tokenizer, under the names of the transformers library."""

    backend_tokenizer: tokenizers.Tokenizer  # text to ids; what surrounds them is added by utils/batches.py
    special_tokens_map: dict[str, str]  # pad_token -> [PAD] and the like
    template: Template  # what surrounds texts
    files: dict[str, bytes]  # name -> content, as they came; tokenizer_config.json with what they left open

    @property
    def pad_token_id(self) -> int:
        """The id that fills up a batch."""
        return self.backend_tokenizer.token_to_id(self.special_tokens_map["pad_token"])

    @property
    def cls_token_id(self) -> int:
        """The id that begins an example."""
        return self.template.cls_id

    @property
    def sep_token_id(self) -> int:
        """The id that ends a sentence."""
        return self.template.sep_id

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
    except InputError:
        raise
    except Exception as error:  # of files that hold anything
        raise InputError(f"{path}: no tokenizer: {_reason(error)}") from error
    for other in sorted(set(others) - {path}):
        _check_same(tokenizer, path, load_tokenizer(other), other)
    return tokenizer


def _read(path: str) -> Tokenizer:
    """The tokenizer that the files of a folder or hub name make."""
    files = read_files(path)
    config = files.parsed("tokenizer_config.json")
    for key in SETTINGS:
        if not isinstance(config.get(key), bool | None):
            raise InputError(f"{path}: {key} {config[key]!r} of tokenizer_config.json: expected true or false")
    model_type = files.model_config.get("model_type")
    stated = {**files.parsed("special_tokens_map.json"), **config}
    if class_name(stated) is None:
        stated["tokenizer_class"] = files.model_config.get("tokenizer_class") or CLASSES.get(model_type)
    special = {name: token.content for name, token in special_tokens(stated).items()}
    backend = _backend(files, config, stated)
    _check_vocabulary(path, backend, special)
    own = read_template(path, backend, special, class_name(stated))
    template = own if _takes_types(stated, model_type) else own._replace(second_type=0)
    tokenizer = Tokenizer(backend, special, template, files.contents)
    decided = _decided(tokenizer, config, class_name(stated))
    if template != own and _takes_types({**config, **decided}):  # only config.json says that there are none
        decided["model_input_names"] = TYPELESS_INPUTS
    if decided:
        files.contents["tokenizer_config.json"] = json.dumps({**config, **decided}, indent=2).encode()
    return tokenizer


def _takes_types(stated: dict[str, Any], model_type: str | None = None) -> bool:
    """Whether the tokenizer makes token types for the model."""
    if {class_name(stated), model_type} & TYPELESS:
        return False
    usual = TYPELESS_INPUTS if class_name(stated) == ANY_TOKENIZER_5 else INPUTS
    return "token_type_ids" in (stated.get("model_input_names") or usual)


def _backend(files: TokenizerFiles, config: dict[str, Any], stated: dict[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer from text to ids, read or built from the files that there are."""
    path, contents = files.path, files.contents
    if not {"tokenizer.json", "vocab.txt", "vocab.json"} & set(contents):
        contents["tokenizer.json"] = _from_sentence_pieces(path).encode()
    if "tokenizer.json" in contents:
        text = files.text("tokenizer.json")
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library has no other
            raise InputError(f"{Path(path, 'tokenizer.json')}: no tokenizer: {_reason(error)}") from error
        _check_contradictions(backend, files, config)
        return backend
    added = files.parsed("added_tokens.json")
    if "vocab.txt" in contents:
        return word_piece(path, files.vocabulary(), stated, added)
    if "merges.txt" not in contents:
        raise InputError(f"{path}: vocab.json without merges.txt; expected both, or tokenizer.json")
    return byte_pairs(path, files.vocabulary(), files.text("merges.txt"), stated, added)


def _from_sentence_pieces(path: str) -> str:
    """The tokenizer.json that the transformers library makes of a SentencePiece model."""
    name = next((name for name in SENTENCE_PIECES if find(path, name) is not None), None)
    if name is None:
        missing = "neither vocab.txt nor tokenizer.json nor vocab.json"
        if not Path(path).is_dir():
            missing = "no such folder, and no such name on the hub or in its cache"
        raise InputError(f"{path}: {missing}, expected a tokenizer")
    if missing := [package for package in ("sentencepiece", "google.protobuf") if not _is_installed(package)]:
        raise InputError(
            f"{path}: {name} without tokenizer.json; expected that, which AutoTokenizer saves, or the packages "
            f"sentencepiece and protobuf, of which {' and '.join(missing)} cannot be imported"
        )
    from transformers import AutoTokenizer  # here, since it takes seconds and few need it

    return AutoTokenizer.from_pretrained(path).backend_tokenizer.to_str()


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # nor what it is a part of
        return False


def _decided(tokenizer: Tokenizer, config: dict[str, Any], named: str | None) -> dict[str, Any]:
    """Entries that tokenizer_config.json lacks, with which transformers reads the same tokenizer from what is saved."""
    backend = tokenizer.backend_tokenizer
    if "tokenizer.json" in tokenizer.files:
        inputs = INPUTS if tokenizer.template.second_type else TYPELESS_INPUTS
        if config.get("tokenizer_class") == ANY_TOKENIZER and not config.get("model_input_names"):
            return {"model_input_names": inputs}  # which transformers 4 and 5 would add differently
        if config.get("tokenizer_class") not in UNNAMED:
            return {}
        # without a class of its own, the library would take BERT's and leave out what tokenizer.json says
        special = tokenizer.special_tokens_map.items()
        present = {name: token for name, token in special if backend.token_to_id(token) is not None}
        decided = {"tokenizer_class": ANY_TOKENIZER, "model_input_names": inputs, **present}
    elif "vocab.txt" in tokenizer.files:
        decided = {"tokenizer_class": named or "BertTokenizer", "do_lower_case": backend.normalizer.lowercase}
    else:
        decided = {"tokenizer_class": "RobertaTokenizer"}
    return {key: value for key, value in decided.items() if config.get(key) in UNNAMED}


def _reason(error: Exception) -> str:
    """A library's message in one line."""
    return " ".join(str(error).split())[:LONGEST_REASON]


def _check_contradictions(backend: tokenizers.Tokenizer, files: TokenizerFiles, config: dict[str, Any]) -> None:
    """vocab.txt, vocab.json and tokenizer_config.json must agree with tokenizer.json."""
    if stated := files.vocabulary():
        name = "vocab.txt" if "vocab.txt" in files.contents else "vocab.json"
        if difference := _first_difference(stated, backend.get_vocab(with_added_tokens=False)):
            raise InputError(f"{files.path}: in {name} {difference} in tokenizer.json; one of them is another model's")
    state = json.loads(backend.to_str())
    for part in (*_parts(state["normalizer"]), *_parts(state["pre_tokenizer"])):
        for key, (kind, name) in SETTINGS.items():
            said, found = config.get(key), part.get(name)
            if part["type"] == kind and said is not None and found not in (None, said):
                raise InputError(
                    f"{files.path}: tokenizer_config.json has {key} {said}, tokenizer.json {name} {found}; expected "
                    "the same"
                )


def _parts(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A part of tokenizer.json, or of what it is made of."""
    part = part or {"type": None}
    return part.get("normalizers") or part.get("pretokenizers") or [part]


def _check_vocabulary(path: str, backend: tokenizers.Tokenizer, special: dict[str, str]) -> None:
    """Special tokens and words must be there."""
    vocabulary = backend.get_vocab()
    needed = [special[name] for name in ("pad_token", "cls_token", "sep_token")]
    for token in (*needed, getattr(backend.model, "unk_token", None)):
        if token is not None and token not in vocabulary:
            first = sorted(vocabulary, key=vocabulary.get)[:3]
            raise InputError(
                f"{path}: no {token} among the tokenizer's {len(vocabulary)} tokens, the first are {first}"
            )
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    if not set(vocabulary) - added:
        raise InputError(f"{path}: a tokenizer of {len(vocabulary)} special tokens and no words; expected a vocabulary")
    backend.encode(RARE)


def _first_difference(ours: dict[str, int], theirs: dict[str, int]) -> str:
    """The first id whose tokens differ, in words; empty if none do."""
    if ours == theirs:
        return ""
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
    found, expected = _settings(theirs), _settings(ours)
    for part, value in found.items():
        if value != expected[part]:
            what = f"{part} {value}; there it is {expected[part]}" if isinstance(value, dict) else f"other {part}"
            raise InputError(f"{other}: the vocabulary of {path}, but {what}")


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """All settings that decide the ids of a text, apart from the vocabulary."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    vocabulary = model.pop("vocab")  # of Unigram a list of pieces and scores, else ids by token
    learnt = {"merges": model.pop("merges", []), "scores": vocabulary if isinstance(vocabulary, list) else []}
    parts = {part: state[part] or {} for part in ("normalizer", "pre_tokenizer", "model")}
    return {**parts, "template": tokenizer.template._asdict(), **learnt}
