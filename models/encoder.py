"""The base of all encoders: configuration, classifier, saving, and the interface that scoring and cutting use.

A model file (bert.py, modernbert.py) adds the forward pass, and layers with these methods:

    layer.widths                        how many heads and neurons are left
    layer.keep_units(heads, neurons)    keeps these only, in this order, in place
    layer.unit_weights()                all weights of each head and of each neuron
    layer.projections()                 where queries, keys and values are computed, for losses between layers
    layer.restore_head_order()          undoes the sorting of heads where Hugging Face's class needs their old order
    model.cls                           the classifier; its last two modules are dropout and the output layer
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
DEFAULTS = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
}
MODERNBERT_DEFAULTS = {
    "hidden_activation": "gelu",
    "max_position_embeddings": 8192,
    "type_vocab_size": 0,
    "initializer_range": 0.02,
    "initializer_cutoff_factor": 2.0,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "pad_token_id": 50283,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "local_attention": 128,
    "embedding_dropout": 0.0,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "classifier_pooling": "cls",
    "classifier_dropout": 0.0,
    "classifier_bias": False,
    "classifier_activation": "gelu",
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
}


def defaults(model_type: str | None) -> dict[str, Any]:
    """The values of settings that a config.json of this type leaves out, as Hugging Face's library has them."""
    return MODERNBERT_DEFAULTS if model_type == "modernbert" else DEFAULTS


class Config(SimpleNamespace):
    """The content of config.json as attributes, with its type's defaults for what it leaves out."""

    def __init__(self, **content: Any):
        super().__init__(**{**defaults(content.get("model_type")), **content})
        self.id2label = {int(index): name for index, name in self.id2label.items()}

    @property
    def num_labels(self) -> int:
        """How many classes; 1 is regression."""
        return len(self.id2label)

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds."""
        return vars(self)


def activation(name: str) -> nn.Module:
    """The activation of this name, the rarer ones from transformers; KeyError if there is none."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]()
    from transformers.activations import ACT2FN  # imported here, since it takes seconds

    return ACT2FN[name]


def classifier(config: Config) -> nn.Sequential:
    """[CLS] state (B, D) -> logits (B, C); dropout is 0.1, as in the paper's code, if the configuration has none."""
    dropout = getattr(config, "classifier_dropout", None)
    return nn.Sequential(
        nn.Linear(config.hidden_size, config.hidden_size),
        activation(getattr(config, "classifier_activation", "tanh")),
        nn.Dropout(0.1 if dropout is None else dropout),
        nn.Linear(config.hidden_size, config.num_labels),
    )


class Embedding(nn.Embedding):
    """An embedding that draws no weight without memory: torch would import its compiler for it, which takes seconds."""

    def reset_parameters(self) -> None:
        """Draw the weight as torch does, if it has memory."""
        if not self.weight.is_meta:
            super().reset_parameters()


class PrunableEncoder(nn.Module):
    """An encoder whose attention heads and FFN neurons can be masked and cut, with a classifier on its last layer.

    `config.sparsity` (a string, percent) and `config.sparsity_map` give each layer's widths; without them all are full.
    """

    name_or_path = "this model"  # where it was read from
    every_token = False  # whether the last layer computes all tokens, which the logits do not need
    # a model file also defines layers, replace_layers(), and embeddings, whose word_embeddings are an nn.Embedding

    def __init__(self, config: Config):
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def num_parameters(self) -> int:
        """The number of weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def use_exact_shortcuts(self, use: bool = True) -> None:
        """Switch the shortcuts that change no logit on or off in all modules."""
        for module in self.modules():
            if hasattr(module, "exact_shortcuts"):
                module.exact_shortcuts = use

    def draw(self, part: nn.Linear | nn.Embedding) -> None:
        """Draw a part's weight as BERT does, from a normal distribution."""
        nn.init.normal_(part.weight, std=self.config.initializer_range)

    def init_weights(self, module: nn.Module | None = None) -> None:
        """Draw new weights for one module, or for all; biases and the padding token's embedding become 0.

        Those without memory are left alone: drawing them changes nothing, but takes half of the time of loading.
        """
        for part in self.modules() if module is None else [module]:
            if any(parameter.is_meta for parameter in part.parameters(recurse=False)):
                continue
            if isinstance(part, nn.Linear | nn.Embedding):
                self.draw(part)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
            if isinstance(part, nn.Embedding) and part.padding_idx is not None:
                nn.init.zeros_(part.weight[part.padding_idx])
            if isinstance(part, nn.LayerNorm):
                part.reset_parameters()

    @staticmethod
    def from_pretrained(path: str | Path) -> "PrunableEncoder":
        """The model of a checkpoint folder or hub name, in eval mode, as models.load_model(path) reads it."""
        from models.checkpoint import load_model  # imported here, since it imports the encoders

        return load_model(str(path))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into a folder, which is made if there is none."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        config = {**self.config.to_dict(), "architectures": [type(self).__name__], "dtype": "float32"}
        write_config(folder, config)
        weights = {name: weight.detach().contiguous() for name, weight in self.state_dict().items()}
        save_file(weights, Path(folder, "model.safetensors"), metadata={"format": "pt"})

    @classmethod
    def from_weights(cls, config: Config, weights: dict[str, Tensor]) -> tuple[Self, list[str], list[str]]:
        """A model in eval mode with these weights, not copied, and newly drawn ones where some are missing.

        Args:
            config: the model's configuration.
            weights: name -> weight, on the CPU.

        Returns:
            The model; names of its weights that were missing or of another shape; given names that it does not have.
        """
        # without memory at first, so that no weight is drawn only to be replaced
        with torch.device("meta"):
            model = cls(config)
        shapes = {name: weight.shape for name, weight in model.state_dict().items()}
        fitting = {name: weight for name, weight in weights.items() if weight.shape == shapes.get(name)}
        model.load_state_dict(fitting, strict=False, assign=True)
        # memory and new weights for what is still missing
        for module in model.modules():
            if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
                module.to_empty(device="cpu", recurse=False)
                model.init_weights(module)
        return model.eval(), sorted(shapes.keys() - fitting.keys()), sorted(weights.keys() - shapes.keys())


def write_config(folder: str | Path, content: dict[str, Any]) -> None:
    """Write config.json into a folder."""
    Path(folder, "config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
