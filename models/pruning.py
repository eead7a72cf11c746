"""Ranking units, the sparsity map, sorting, cutting, and dropping layers.

sort_units(model, scores)     # once; from then on the best units come first in every layer
student = cut(model, 70)      # any number of times
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from models.bert import Layer, PrunableBert
from models.units import CheckpointError, Units, kept_units

SPARSITIES = range(0, 100, 10)


def removed_per_layer(score: Tensor, sparsity: int) -> dict[str, int]:
    """How many units each layer loses at a sparsity (percent): the lowest round(s/100 * n) of all layers' go.

    Args:
        score: (L, units per layer).

    Returns:
        Layer, as config.json writes it -> count, without the layers that lose nothing.
    """
    layers, units = score.shape
    # a layer's units from high to low, so that of equal scores the first layer's go first, as in the paper's code
    order = score.sort(dim=1, descending=True, stable=True).values.flatten().sort(stable=True).indices
    removed = torch.bincount(order[: round(sparsity / 100 * layers * units)] // units, minlength=layers)
    return {str(layer): count for layer, count in enumerate(removed.tolist()) if count}


def sparsity_map(scores: Units) -> dict[str, dict[str, dict[str, int]]]:
    """Units removed per layer at 0, 10, ..., 90 %, in the form that config.json carries."""
    return {
        str(sparsity): {
            "head": removed_per_layer(scores.head, sparsity),
            "neuron": removed_per_layer(scores.neuron, sparsity),
        }
        for sparsity in SPARSITIES
    }


def select_units(layer: Layer, heads: Tensor, neurons: Tensor) -> None:
    """Keep these heads and neurons of a layer, in this order: indices (heads kept,) and (neurons kept,). In place."""
    attention = layer.attention["self"]
    columns = (heads[:, None] * attention.size + torch.arange(attention.size, device=heads.device)).flatten()
    for linear in (attention.query, attention.key, attention.value):
        _select(linear, columns, dim=0)
    _select(layer.attention["output"].dense, columns, dim=1)
    _select(layer.intermediate["dense"], neurons, dim=0)
    _select(layer.output.dense, neurons, dim=1)
    attention.heads = len(heads)


def _select(linear: nn.Linear, index: Tensor, dim: int) -> None:
    """Keep these outputs (dim 0) or inputs (dim 1) of a linear layer; the bias belongs to the outputs."""
    linear.weight = nn.Parameter(linear.weight.detach().index_select(dim, index))
    if dim == 0:
        linear.bias = nn.Parameter(linear.bias.detach()[index])
    linear.out_features, linear.in_features = linear.weight.shape


def sort_units(model: PrunableBert, scores: Units) -> None:
    """Put each layer's units in the order of their scores, best first, and the sparsity map into the configuration.

    Changes no logit. In place.
    """
    scores = Units(*(score.detach().float().cpu() for score in scores))
    for layer, head, neuron in zip(model.layers, scores.head, scores.neuron, strict=True):
        device = layer.output.dense.weight.device
        select_units(layer, *(score.argsort(descending=True, stable=True).to(device) for score in (head, neuron)))
    model.config.sparsity = "0"
    model.config.sparsity_map = sparsity_map(scores)


def cut(model: PrunableBert, sparsity: int) -> PrunableBert:
    """A copy of a sorted model without the units that its sparsity map removes at this sparsity (percent).

    Raises:
        CheckpointError: the map does not hold the sparsity, or the model is already cut deeper.
    """
    now = int(getattr(model.config, "sparsity", 0))
    if sparsity < now:
        raise CheckpointError(f"a model cut at {now} % cannot be cut at {sparsity} %")
    widths = kept_units(model.config, sparsity)
    model = copy.deepcopy(model)
    for layer, width in zip(model.layers, widths, strict=True):
        select_units(layer, *(torch.arange(units, device=model.device) for units in width))
    if hasattr(model.config, "sparsity_map"):
        model.config.sparsity = str(sparsity)
        model.config.sparsity_map = {s: units for s, units in model.config.sparsity_map.items() if int(s) >= sparsity}
    return model


def drop_layers(model: PrunableBert, layers: int) -> PrunableBert:
    """A copy with the first `layers` layers only; embeddings and classifier stay.

    Raises:
        CheckpointError: the model has fewer layers.
    """
    if layers > len(model.layers):
        raise CheckpointError(f"--student_layer {layers}: the model has only {len(model.layers)} layers")
    model = copy.deepcopy(model)
    del model.layers[layers:]
    model.config.num_hidden_layers = layers
    _forget_other_sparsities(model.config)
    return model


def _forget_other_sparsities(config: Any) -> None:
    """With layers gone the shares removed no longer add up: keep only the entry that gives the present widths."""
    if hasattr(config, "sparsity_map"):
        present = config.sparsity_map[str(config.sparsity)]
        kept = {
            kind: {layer: count for layer, count in present[kind].items() if int(layer) < config.num_hidden_layers}
            for kind in ("head", "neuron")
        }
        config.sparsity_map = {str(config.sparsity): kept}


def initial_student(model: PrunableBert, layers: int | None, sparsity: int | None) -> PrunableBert:
    """The student before distillation: cut at a sparsity (percent) if one is given, else the first layers."""
    return drop_layers(model, layers) if sparsity is None else cut(model, sparsity)
