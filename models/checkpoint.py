"""Reads a checkpoint, a folder or hub name of any family, as a prunable encoder, or says in one line why not.

    teacher = load_model("outputs/finetune/ft_rte/ckpt", ("not_entailment", "entailment"))
    pretrained = load_model("bert-base-uncased", ("not_entailment", "entailment"), fine_tuned=False)

Any checkpoint of a family in models/families.py can start training; one that was fine-tuned here, or by Hugging Face's
class for sequence classification, can be a teacher.
"""

import logging
import re
from typing import Any

import torch

from models.bert import PrunableBert
from models.encoder import Config, PrunableEncoder, activation, defaults
from models.families import FAMILIES, OURS, as_bert_config, as_bert_weights, is_ours
from models.hub import one_line_errors, read_config, read_weights
from models.modernbert import PrunableModernBert
from models.relative_bias import RelativeBias
from models.units import CheckpointError

logger = logging.getLogger("stark")
ENCODERS = {"modernbert": PrunableModernBert}  # by model_type; all others are PrunableBert
NEEDED = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
BERTS = ("Bert", "PrunableBert")  # beginnings of a BERT's architectures in config.json
# settings that change the computation -> the only value that is implemented
ONLY = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
    "rope_scaling": None,
    "sliding_window": None,  # ModernBERT's is local_attention
}
# keys of config.json that do not hold for the model that is read: it is for this task, and in float32
DROPPED = ("num_labels", "export_source", "problem_type", "dtype", "torch_dtype")


def load_model(path: str, labels: tuple[str, ...] | None = None, fine_tuned: bool = True) -> PrunableEncoder:
    """Read a checkpoint for a task, in float32 and eval mode; the log names weights that are new or unused.

    Args:
        path: a folder, or a name on the hub.
        labels: class names in the order of the task's class ids; () for regression; None for the checkpoint's own,
            where one class is regression. The rows of a classifier that numbers the same names differently are put in
            this order.
        fine_tuned: whether a classifier for these labels must be there, ours or Hugging Face's; else only ours is read,
            and a new one is drawn if there is none.

    Raises:
        CheckpointError: not found, damaged, of another family, with settings that are not implemented, without some of
            the encoder's weights, or without a classifier for these labels.
    """
    raw = read_config(path)
    with one_line_errors(path):
        # the configuration, with the task's labels
        _check_family(raw)
        names = _class_names(raw)
        if labels is None:
            labels = names if len(names) > 1 else ()
        config = _configuration(raw, labels)

        # the weights, under our names
        weights = read_weights(path)
        weights = as_bert_weights(raw, weights, with_head=fine_tuned and _has_library_head(raw, weights))
        model, absent, unused = _encoder_class(config).from_weights(config, weights)
        model.name_or_path = path

        # the encoder must be complete, and of a fine-tuned model the classifier, too
        _check_encoder(absent, unused)
        if fine_tuned:
            if absent:
                raise CheckpointError(
                    f"no classifier for {len(labels) or 1} classes ({absent[0]} is missing or of another shape); "
                    "fine-tune it on this task with run_finetuning.py first"
                )
            _check_problem(raw, labels)
            _order_classes(model, path, names, labels)
    loaded = len(model.state_dict()) - len(absent)
    names_of = [", ".join(keys[:4]) + ", ..." * (len(keys) > 4) or "none" for keys in (absent, unused)]
    logger.info("%s: %d weights loaded; new: %s; unused: %s", path, loaded, *names_of)
    return model


def weightless_model(config: dict[str, Any]) -> PrunableEncoder:
    """A model of this config.json without memory for its weights, to count its parameters and operations.

    Raises:
        CheckpointError: load_model would refuse the configuration.
    """
    _check_family(config)
    own = _configuration(config, _class_names(config))
    with torch.device("meta"):
        return _encoder_class(own)(own)


def _configuration(raw: dict[str, Any], labels: tuple[str, ...]) -> Config:
    """A config.json of a known family as ours, with these labels; CheckpointError for what is not implemented."""
    settings = as_bert_config(raw)
    _check_settings(settings)
    return Config(**_for_labels(settings, labels))


def _encoder_class(config: Config) -> type[PrunableEncoder]:
    return ENCODERS.get(config.model_type, PrunableBert)


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


def _check_family(config: dict[str, Any]) -> None:
    """Raise CheckpointError for a type that FAMILIES lacks; without model_type, google-research's BERTs are bert."""
    kind = config.get("model_type") or "bert"
    if not config.get("model_type"):
        other = [name for name in config.get("architectures") or [] if not str(name).startswith(BERTS)]
        lacking = [f"no {key}" for key in NEEDED if key not in config] + [f"architectures {name}" for name in other]
        kind = f"unknown (no model_type, {lacking[0]})" if lacking else "bert"
    if kind not in FAMILIES:
        raise CheckpointError(f"a checkpoint of type {kind}, expected one of {', '.join(FAMILIES)}")


def _check_settings(config: dict[str, Any]) -> None:
    """Raise CheckpointError for settings with which our encoders would not compute what the checkpoint's own does."""
    _check_shape(config)
    buckets = config.get("relative_attention_num_buckets", RelativeBias.BUCKETS)
    if not isinstance(buckets, int) or buckets < RelativeBias.BUCKETS:
        expected = f"expected {RelativeBias.BUCKETS} at least"
        raise CheckpointError(f"relative_attention_num_buckets {buckets!r} of config.json: {expected}")
    for key, value in ONLY.items():
        if config.get(key) not in (None, value):
            raise CheckpointError(f"{key} {config[key]!r} of config.json: not supported, expected {value}")
    _check_activations(config)


def _check_shape(config: dict[str, Any]) -> None:
    """Raise CheckpointError if a size of the model is missing or impossible."""
    for key in NEEDED:
        if key not in config:
            raise CheckpointError(f"no {key} in config.json")
    usual = defaults(config.get("model_type"))
    config = {**usual, **config}
    numbers = {k: value for k, value in usual.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    for key, default in {**dict.fromkeys(NEEDED, 1), **numbers}.items():
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, type(default) | int) or value < 0:
            expected = "an integer" if isinstance(default, int) else "a number"
            raise CheckpointError(f"{key} {value!r} of config.json: expected {expected} of at least 0")
    if not config["num_attention_heads"] or config["hidden_size"] % config["num_attention_heads"]:
        heads = config["num_attention_heads"]
        raise CheckpointError(f"config.json: {heads} heads do not divide hidden_size {config['hidden_size']}")
    if config["pad_token_id"] >= config["vocab_size"]:
        padding = f"pad_token_id {config['pad_token_id']}"
        raise CheckpointError(f"{padding} of config.json: expected less than vocab_size {config['vocab_size']}")


def _check_activations(config: dict[str, Any]) -> None:
    """Raise CheckpointError if a named activation is unknown."""
    for key in ("hidden_act", "hidden_activation", "classifier_activation"):
        try:
            activation(config.get(key, "gelu"))
        except (KeyError, TypeError):
            found = f"{key} {config[key]!r} of config.json"
            raise CheckpointError(f"{found}: unknown, expected gelu, relu or the like") from None


def _for_labels(config: dict[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """The configuration with the task's labels, and without DROPPED."""
    names = dict(enumerate(labels or ("score",)))
    config = {key: value for key, value in config.items() if key not in DROPPED}
    return {**config, "id2label": names, "label2id": {name: index for index, name in names.items()}}


def _has_library_head(config: dict[str, Any], weights: dict[str, Any]) -> bool:
    """Whether the weights hold the classifier of the family's class in Hugging Face's library, not another head."""
    family = FAMILIES[config.get("model_type") or "bert"]
    is_its_class = family.library_class in (config.get("architectures") or [family.library_class])
    return is_its_class and not is_ours(config) and all(f"{name}weight" in weights for name in family.head)


def _check_encoder(absent: list[str], unused: list[str]) -> None:
    """Raise CheckpointError if encoder weights are missing, or left over."""
    if missing := [name for name in absent if name.startswith(OURS)]:
        raise CheckpointError(f"{len(missing)} encoder weights are missing or of another shape: {missing[0]}")
    # position_ids are 0, 1, 2, ..., which older versions of the library saved
    inside = re.compile(re.escape(OURS) + r"(embeddings|encoder|layers|final_LayerNorm)\.(?!position_ids$)")
    if foreign := [name for name in unused if inside.match(name)]:
        raise CheckpointError(f"{len(foreign)} encoder weights that its config.json has no place for: {foreign[0]}")


def _check_problem(config: dict[str, Any], labels: tuple[str, ...]) -> None:
    """Raise CheckpointError for a classifier of several labels at once, or of several scores."""
    expected = "single_label_classification" if labels else "regression"
    found = config.get("problem_type")
    if found not in (None, expected) and not is_ours(config):  # ours is trained for its task, whatever it started from
        raise CheckpointError(f"problem_type {found!r} of config.json: expected {expected}")


def _order_classes(model: PrunableEncoder, path: str, names: tuple[str, ...], labels: tuple[str, ...]) -> None:
    """Put the classifier's rows into the labels' order; LABEL_0, LABEL_1, ... are assumed to be in it.

    Case does not matter: the best-known classifiers for SST-2 and MNLI have names in capitals.
    """
    if not labels or names == labels:
        return
    if names == tuple(f"LABEL_{index}" for index in range(len(labels))):
        order = ", ".join(labels)
        logger.warning(
            "%s: its classes have no names, taken to be in this order: %s; if they are in another one, such as that of "
            "the datasets library's RTE, QNLI and MNLI, id2label of its config.json has to name them",
            path,
            order,
        )
        return
    found, expected = list(names), list(labels)
    if sorted(found) != sorted(expected):
        found, expected = ([name.casefold() for name in some] for some in (names, labels))
    if sorted(found) != sorted(expected) or len(set(expected)) < len(expected):
        raise CheckpointError(f"a classifier for {', '.join(names)}; this task has {', '.join(labels)}")
    for parameter in model.cls[-1].parameters():
        parameter.data = parameter.data[[found.index(label) for label in expected]]
