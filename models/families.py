"""The table of encoder families, and the renaming of their configurations and weights to BERT's names, and back.

    as_bert_config(config), as_bert_weights(config, weights)          # when a checkpoint is read
    as_library_config(config), as_library_weights(config, weights)    # for an export to Hugging Face's class

A new family that computes as BERT does is an entry of FAMILIES; ModernBERT has a model file of its own.
"""

import contextlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

OURS = "bert."  # prefix of all weights of our encoders
ARCHITECTURES = ("PrunableBert", "PrunableModernBert")  # in config.json: saved here, with our names
# key of config.json -> BERT's
DISTILBERT_SETTINGS = {
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "activation": "hidden_act",
    "seq_classif_dropout": "classifier_dropout",
}
# parts of weights' names -> BERT's, replaced in this order; also in the way back
DISTILBERT_NAMES = {
    "transformer.layer.": "encoder.layer.",
    ".attention.q_lin.": ".attention.self.query.",
    ".attention.k_lin.": ".attention.self.key.",
    ".attention.v_lin.": ".attention.self.value.",
    ".attention.out_lin.": ".attention.output.dense.",
    ".sa_layer_norm.": ".attention.output.LayerNorm.",
    ".ffn.lin1.": ".intermediate.dense.",
    ".ffn.lin2.": ".output.dense.",
    ".output_layer_norm.": ".output.LayerNorm.",
}
MPNET_NAMES = {
    ".attention.attn.q.": ".attention.self.query.",
    ".attention.attn.k.": ".attention.self.key.",
    ".attention.attn.v.": ".attention.self.value.",
    ".attention.attn.o.": ".attention.output.dense.",
    ".attention.LayerNorm.": ".attention.output.LayerNorm.",
}
# the classifier's weights of most families -> ours
HEAD = {"classifier.dense.": "cls.0.", "classifier.out_proj.": "cls.3."}


class Family(NamedTuple):
    """How a family's checkpoints differ from BERT's."""

    library_class: str  # the sequence classifier of Hugging Face's library
    prefix: str  # of all weights of its encoder
    head: dict[str, str] = HEAD  # names of the classifier's weights -> ours
    names: dict[str, str] = {}  # parts of the names of the encoder's weights -> BERT's
    settings: dict[str, str] = {}  # keys of its config.json -> BERT's
    defaults: dict[str, Any] = {}  # of its config.json, where they differ from BERT's
    fixed: dict[str, Any] = {}  # what its library class computes by, whatever config.json says
    starts_after_pad: bool = False  # whether positions are counted from the padding token's id + 1


ROBERTA = {"pad_token_id": 1}
TANH = {"classifier_activation": "tanh"}
FAMILIES = {
    "bert": Family(
        "BertForSequenceClassification", "bert.", {"bert.pooler.dense.": "cls.0.", "classifier.": "cls.3."}, fixed=TANH
    ),
    "roberta": Family(
        "RobertaForSequenceClassification", "roberta.", defaults=ROBERTA, fixed=TANH, starts_after_pad=True
    ),
    "xlm-roberta": Family(
        "XLMRobertaForSequenceClassification", "roberta.", defaults=ROBERTA, fixed=TANH, starts_after_pad=True
    ),
    "camembert": Family(
        "CamembertForSequenceClassification", "roberta.", defaults=ROBERTA, fixed=TANH, starts_after_pad=True
    ),
    "electra": Family(
        "ElectraForSequenceClassification",
        "electra.",
        names={"embeddings_project.": "embeddings.project."},
        defaults={"embedding_size": 128},
        fixed={"classifier_activation": "gelu"},
    ),
    "distilbert": Family(
        "DistilBertForSequenceClassification",
        "distilbert.",
        {"pre_classifier.": "cls.0.", "classifier.": "cls.3."},
        DISTILBERT_NAMES,
        DISTILBERT_SETTINGS,
        fixed={"classifier_activation": "relu", "layer_norm_eps": 1e-12, "type_vocab_size": 0},
    ),
    "mpnet": Family(
        "MPNetForSequenceClassification",
        "mpnet.",
        names=MPNET_NAMES,
        defaults={"relative_attention_num_buckets": 32},
        fixed={"type_vocab_size": 0, "pad_token_id": 1, **TANH},
        starts_after_pad=True,
    ),
    "modernbert": Family(
        "ModernBertForSequenceClassification",
        "model.",
        {"head.dense.": "cls.dense.", "head.norm.": "cls.LayerNorm.", "classifier.": "cls.classifier."},
        {"tok_embeddings.": "word_embeddings.", "norm.": "LayerNorm."},
        fixed={"type_vocab_size": 0},
    ),
}


def is_ours(config: dict[str, Any]) -> bool:
    """Whether a config.json was written by this code, so that nothing has to be renamed."""
    return any(name in ARCHITECTURES for name in config.get("architectures") or [])


def as_bert_config(config: dict[str, Any]) -> dict[str, Any]:
    """A family's config.json with BERT's keys."""
    if is_ours(config):
        return config
    family = FAMILIES[config.get("model_type") or "bert"]
    renamed = {name: config[key] for key, name in family.settings.items() if key in config}
    others = {key: value for key, value in config.items() if key not in family.settings}
    config = {**family.defaults, **others, **renamed, **family.fixed}
    if family.starts_after_pad:
        with contextlib.suppress(TypeError):  # values that are no numbers are refused later
            config["max_position_embeddings"] = config.get("max_position_embeddings", 512) - _first_position(config)
    return config


def as_bert_weights(config: dict[str, Any], weights: dict[str, Tensor], with_head: bool) -> dict[str, Tensor]:
    """A family's weights under our names.

    Args:
        config: content of its config.json.
        weights: name -> weight, as in its files.
        with_head: whether to rename the classifier's weights, too.
    """
    if is_ours(config):
        return weights
    family = FAMILIES[config.get("model_type") or "bert"]
    if not any(name.startswith((family.prefix, OURS)) for name in weights):  # an encoder saved alone
        weights = {family.prefix + name: weight for name, weight in weights.items()}
    renamed = {_renamed(name, family, with_head): weight for name, weight in weights.items()}
    # positions count from 0 here
    positions = OURS + "embeddings.position_embeddings.weight"
    if family.starts_after_pad and positions in renamed:
        renamed[positions] = renamed[positions][_first_position(as_bert_config(config)) :]
    # MPNet's heads are still in the order of its table of biases
    if "relative_attention_num_buckets" in family.defaults:
        bert = as_bert_config(config)
        for layer in range(bert["num_hidden_layers"]):
            columns = torch.arange(bert["num_attention_heads"])
            renamed[f"{OURS}encoder.layer.{layer}.attention.self.bias_columns"] = columns
    return renamed


def _renamed(name: str, family: Family, with_head: bool) -> str:
    """One weight's name -> ours."""
    for theirs, ours in family.head.items():
        if with_head and name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    if not name.startswith(family.prefix):
        return name
    name = OURS + name.removeprefix(family.prefix)
    google_research = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for theirs, ours in {**family.names, **google_research}.items():
        name = name.replace(theirs, ours)
    return name


def _first_position(config: dict[str, Any]) -> int:
    """The row of the position embeddings that the first token takes; the rows before it are unused."""
    return config["pad_token_id"] + 1


def as_library_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the family's class in Hugging Face's library, of ours for a model without cut layers."""
    family = FAMILIES[config["model_type"]]
    theirs = {ours: name for name, ours in family.settings.items()}
    left_out = ["sparsity", "sparsity_map", *family.fixed]
    settings = {theirs.get(key, key): value for key, value in config.items() if key not in left_out}
    settings["architectures"] = [family.library_class]
    if family.starts_after_pad:
        settings["max_position_embeddings"] += _first_position(config)
    if len(config["id2label"]) == 1:
        settings["problem_type"] = "regression"
    return settings


def as_library_weights(config: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names of the family's class; MPNet's heads must be in their original order."""
    family = FAMILIES[config["model_type"]]
    head = {ours: theirs for theirs, ours in family.head.items()}
    names = {**{ours: theirs for theirs, ours in family.names.items()}, OURS: family.prefix}
    theirs = {}
    for name, weight in weights.items():
        if name.endswith(".bias_columns"):
            continue
        for ours, other in {**head, **names}.items():
            name = name.replace(ours, other, 1)
        theirs[name] = weight.contiguous()
    positions = family.prefix + "embeddings.position_embeddings.weight"
    if family.starts_after_pad:
        unused = theirs[positions].new_zeros(_first_position(config), theirs[positions].shape[1])
        theirs[positions] = torch.cat([unused, theirs[positions]])
    return theirs
