"""Checkpoint folders and hub names as they are out there -> the prunable BERT, or one line that says why not.

    teacher = load_model("outputs/finetune/ft_rte/ckpt", ("not_entailment", "entailment"))
    pretrained = load_model("bert-base-uncased", ("not_entailment", "entailment"), fine_tuned=False)

Any of Hugging Face's or google-research's BERTs is a start for training; what was fine-tuned here, or by Hugging Face's
BertForSequenceClassification, is a teacher.
"""

import contextlib
import json
import logging
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError
from transformers import BertConfig
from transformers.activations import ACT2FN
from transformers.utils import logging as library_logging

from models.bert import PrunableBert
from models.units import CheckpointError

logger = logging.getLogger("stark")
library_logging.disable_progress_bar()  # reading and writing a checkpoint takes a second
NOT_FOUND = (
    "no such folder, and no such name on the hub or in its cache; expected a folder of config.json, model.safetensors "
    "and the tokenizer's files: tokenizer.json or vocab.txt, and tokenizer_config.json"
)
BERT_KEYS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
# what would change the computation, and the only value for which ours is right
ONLY = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
}
# Hugging Face's classifier -> ours: the pooler is its first layer and its tanh
CLASSIFIER = {"bert.pooler.dense.": "cls.0.", "classifier.": "cls.3."}
LONGEST_REASON = 300  # characters of a library's message


def load_model(path: str, labels: tuple[str, ...] | None, fine_tuned: bool = True) -> PrunableBert:
    """Read a BERT checkpoint for a task, in float32; a line of log says what was not there or not used.

    Args:
        path: a folder, or a name on the hub.
        labels: class names in the order of the task's class ids; () for regression; None for the checkpoint's own, one
            class being regression. A checkpoint that numbers the same names differently has its classifier's rows put
            in this order.
        fine_tuned: the classifier must be there, for these labels; else a new one is drawn where ours is not there,
            Hugging Face's or not.

    Raises:
        CheckpointError: not found, not BERT, not as this BERT computes, damaged, encoder weights missing, or no
            classifier for these labels.
    """
    with _one_line_errors(path), _quiet_library():
        raw = _read_config(path)
        _check_config(raw)
        names = _class_names(raw)
        if labels is None:
            labels = names if len(names) > 1 else ()
        config = BertConfig.from_dict(_for_labels(raw, labels))
        model, absent, unused = _read_weights(path, config)
        if fine_tuned and _has_their_classifier(raw, unused):
            model, absent, unused = _read_weights(path, config, CLASSIFIER)
        _check_encoder(absent, unused)
        if fine_tuned:
            if absent:
                raise CheckpointError(
                    f"no classifier for {len(labels) or 1} classes ({absent[0]} is missing or of another shape); "
                    "fine-tune it on this task with run_finetuning.py first"
                )
            _order_classes(model, path, names, labels)
    loaded = len(model.state_dict()) - len(absent)
    names_of = [", ".join(keys[:4]) + ", ..." * (len(keys) > 4) or "none" for keys in (absent, unused)]
    logger.info("%s: %d weights loaded; new: %s; unused: %s", path, loaded, *names_of)
    return model


def read_config(path: str) -> dict[str, Any]:
    """The content of a checkpoint's config.json; a folder's or a hub name's.

    Raises:
        CheckpointError: not found, or no JSON object.
    """
    with _one_line_errors(path):
        return _read_config(path)


def _class_names(config: dict[str, Any]) -> tuple[str, ...]:
    """The names of a config.json's classes in the order of their ids; LABEL_0, LABEL_1, ... where it has none."""
    count = config.get("num_labels", 2)
    if "id2label" not in config and isinstance(count, int):
        return tuple(f"LABEL_{index}" for index in range(count))
    names = config.get("id2label")
    ids = [str(index) for index in range(len(names))] if isinstance(names, dict) else []
    if not ids or set(names) != set(ids) or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"id2label of config.json: found {names}, expected the classes' names by 0, 1, ...")
    return tuple(names[index] for index in ids)


def _read_config(path: str) -> dict[str, Any]:
    """The content of config.json."""
    folder = Path(path)
    if folder.exists() and not (folder / "config.json").is_file():
        raise CheckpointError("no config.json there, expected a folder as Hugging Face's library writes it")
    try:
        file = folder / "config.json" if folder.exists() else Path(hf_hub_download(path, "config.json"))
    except HFValidationError as error:
        raise CheckpointError("no such folder, expected a checkpoint") from error
    except OSError as error:
        raise CheckpointError(NOT_FOUND) from error
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"config.json: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"config.json: found {config!r}, expected an object")
    return config


def _check_config(config: dict[str, Any]) -> None:
    """It must be that of a BERT, and ours must compute the same."""
    lacking = [key for key in BERT_KEYS if key not in config]  # google-research's have no model_type
    kind = config.get("model_type") or (f"unknown (no model_type, no {lacking[0]})" if lacking else "bert")
    if kind != "bert":
        raise CheckpointError(f"a checkpoint of type {kind}, expected bert")
    for key, value in ONLY.items():
        if config.get(key) not in (None, value):
            raise CheckpointError(f"{key} {config[key]!r} of config.json: not supported, expected {value}")
    activation = config.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACT2FN:
        raise CheckpointError(f"hidden_act {activation!r} of config.json: unknown, expected gelu, relu or the like")


def _for_labels(config: dict[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """The configuration with the task's labels, and without what only says where an export came from."""
    names = dict(enumerate(labels or ("score",)))
    told = {key: value for key, value in config.items() if key not in ("num_labels", "export_source")}
    return {**told, "id2label": names, "label2id": {name: index for index, name in names.items()}}


def _read_weights(
    path: str, config: BertConfig, renames: dict[str, str] | None = None
) -> tuple[PrunableBert, list[str], list[str]]:
    """The model, and the names of its weights that are not in the checkpoint, and of the checkpoint's not in it."""
    patterns = {"^" + re.escape(theirs): ours for theirs, ours in (renames or {}).items()}
    model, info = PrunableBert.from_pretrained(
        path,
        config=config,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        key_mapping=patterns or None,
    )
    absent = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    return model, sorted(absent), sorted(info["unexpected_keys"])


def _has_their_classifier(config: dict[str, Any], unused: list[str]) -> bool:
    """Whether weights that ours has no place for are BertForSequenceClassification's, and not another head's."""
    kind = "BertForSequenceClassification"
    named_so = kind in (config.get("architectures") or [kind])
    return named_so and all(f"{name}weight" in unused for name in CLASSIFIER)


def _check_encoder(absent: list[str], unused: list[str]) -> None:
    """The checkpoint's encoder must be the model's, neither less nor more."""
    if missing := [key for key in absent if not key.startswith("cls.")]:
        raise CheckpointError(f"{len(missing)} encoder weights are missing or of another shape: {missing[0]}")
    # position_ids are 0, 1, 2, ..., which older versions of the library saved
    inside = re.compile(r"(bert\.)?(embeddings|encoder)\.(?!position_ids$)")
    if foreign := [key for key in unused if inside.match(key)]:
        raise CheckpointError(f"{len(foreign)} encoder weights that its config.json has no place for: {foreign[0]}")


def _order_classes(model: PrunableBert, path: str, names: tuple[str, ...], labels: tuple[str, ...]) -> None:
    """Put the classifier's rows into the labels' order; the names LABEL_0, LABEL_1, ... are taken to be in it."""
    if not labels or names == labels:
        return
    if names == tuple(f"LABEL_{index}" for index in range(len(labels))):
        logger.info("%s: its classes have no names, taken to be in this order: %s", path, ", ".join(labels))
        return
    if sorted(names) != sorted(labels):
        raise CheckpointError(f"a classifier for {', '.join(names)}; this task has {', '.join(labels)}")
    for parameter in model.cls[3].parameters():
        parameter.data = parameter.data[[names.index(label) for label in labels]]


@contextlib.contextmanager
def _one_line_errors(path: str) -> Iterator[None]:
    """What is raised for a checkpoint that cannot be read, in one line that names it."""
    try:
        yield
    except Exception as error:  # for damaged files the libraries have many kinds; --debug shows which
        ours = isinstance(error, CheckpointError)
        raise CheckpointError(f"{path}: {error if ours else _reason(Path(path), error)}") from error


def _reason(folder: Path, error: Exception) -> str:
    """A library's message in one line, or what is behind it where the message leads astray."""
    because = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):  # the library's own advice is to run what the file holds
        because = "weights that are damaged, or something else than tensors"
    for file in sorted(path for kind in ("*.json", "*.safetensors", "*.bin") for path in folder.glob(kind)):
        with open(file, "rb") as opened:
            if opened.read(23) == b"version https://git-lfs":
                because = f"{file.name} is a git-lfs pointer, not the file itself; git lfs pull fetches it"
    return f"cannot be read: {because}"


@contextlib.contextmanager
def _quiet_library() -> Iterator[None]:
    """Without the library's own report on loading: load_model says it in a line."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # no line for every time it asks the hub again
    verbosity, _ = library_logging.get_verbosity(), library_logging.set_verbosity_error()
    try:
        yield
    finally:
        library_logging.set_verbosity(verbosity)
