"""What all encoders share: their configuration, classifier and files, and what scoring and cutting ask of them.

A model file (bert.py, modernbert.py) brings the forward pass and layers of this interface:

    layer.widths                        heads and neurons that are left
    layer.keep_units(heads, neurons)    these only, in this order, in place
    layer.unit_weights()                all weights of each head and of each neuron
    layer.projections()                 queries, keys and values, for losses that compare them
    layer.restore_head_order()          undoes sorting where Hugging Face's class could not take it
    model.cls                           the classifier, ending in dropout and output layer
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
    """What holds where a config.json of this type leaves it out, as models of the type have it."""
    return MODERNBERT_DEFAULTS if model_type == "modernbert" else DEFAULTS


class Config(SimpleNamespace):
    """The content of config.json by attributes, with its type's defaults for what it leaves out."""

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
    """The activation that config.json names; of the rarer ones, the library's own. KeyError if it has none."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]()
    from transformers.activations import ACT2FN  # takes seconds

    return ACT2FN[name]


def classifier(config: Config) -> nn.Sequential:
    """[CLS] state (B, D) -> logits (B, C); dropout as in the paper's code where the configuration has none."""
    dropout = getattr(config, "classifier_dropout", None)
    return nn.Sequential(
        nn.Linear(config.hidden_size, config.hidden_size),
        activation(getattr(config, "classifier_activation", "tanh")),
        nn.Dropout(0.1 if dropout is None else dropout),
        nn.Linear(config.hidden_size, config.num_labels),
    )


class PrunableEncoder(nn.Module):
    """An encoder whose attention heads and FFN neurons can be masked and cut, and a classifier on its last states.

    `config.sparsity` (a string, percent) and `config.sparsity_map` give each layer's width; without them it is full.
    """

    name_or_path = "this model"  # where it was read from
    every_token = False  # whether the last layer computes all tokens, which the logits do not need
    # a model file has, too: layers, replace_layers(), and embeddings, whose word_embeddings are an nn.Embedding

    def __init__(self, config: Config):
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def num_parameters(self) -> int:
        """How many weights there are."""
        return sum(parameter.numel() for parameter in self.parameters())

    def use_exact_shortcuts(self, use: bool = True) -> None:
        """Switch the shortcuts that change no logit, here and in all parts, on or off."""
        for module in self.modules():
            if hasattr(module, "exact_shortcuts"):
                module.exact_shortcuts = use

    def draw(self, part: nn.Linear | nn.Embedding) -> None:
        """A new weight for one part, as BERT's are drawn."""
        nn.init.normal_(part.weight, std=self.config.initializer_range)

    def init_weights(self, module: nn.Module | None = None) -> None:
        """Draw new weights for one module or for all; biases and the padding's embedding are 0."""
        for part in self.modules() if module is None else [module]:
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
        from models.checkpoint import load_model  # which needs the encoders

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
        """A model in eval mode with these weights, which it takes over, and new ones for what they lack.

        Args:
            config: of the model.
            weights: name -> weight, on the CPU.

        Returns:
            The model; names of its weights that were not there or had another shape; names that it has no place for.
        """
        with torch.device("meta"):  # so that nothing is drawn that is replaced at once
            model = cls(config)
        shapes = {name: weight.shape for name, weight in model.state_dict().items()}
        fitting = {name: weight for name, weight in weights.items() if weight.shape == shapes.get(name)}
        model.load_state_dict(fitting, strict=False, assign=True)
        for module in model.modules():
            if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
                module.to_empty(device="cpu", recurse=False)
                model.init_weights(module)
        return model.eval(), sorted(shapes.keys() - fitting.keys()), sorted(weights.keys() - shapes.keys())


def write_config(folder: str | Path, content: dict[str, Any]) -> None:
    """Write config.json."""
    Path(folder, "config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
