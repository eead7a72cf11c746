"""Ranking units, the sparsity map, sorting, cutting, and dropping layers.

sort_units(model, scores)     # once; from then on the best units come first in every layer
student = cut(model, 70)      # any number of times
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from models.encoder import PrunableEncoder
from models.units import CheckpointError, Units, kept_units, sparsity_of

SPARSITIES = range(0, 100, 10)


def removed_per_layer(score: Tensor, sparsity: int) -> dict[str, int]:
    """How many units each layer loses at a sparsity (percent): of all n units, the lowest round(s/100 * n) go.

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


def sort_units(model: PrunableEncoder, scores: Units) -> None:
    """Put each layer's units in the order of their scores, best first, and the sparsity map into the configuration.

    Changes no logit. In place.
    """
    scores = scores.map(lambda score: score.detach().float().cpu())
    order = scores.map(lambda score: score.argsort(dim=1, descending=True, stable=True).to(model.device))
    for layer, heads, neurons in zip(model.layers, order.head, order.neuron, strict=True):
        layer.keep_units(heads, neurons)
    model.config.sparsity = "0"
    model.config.sparsity_map = sparsity_map(scores)


def cut(model: PrunableEncoder, sparsity: int) -> PrunableEncoder:
    """A copy of a sorted model without the units that its sparsity map removes at this sparsity (percent).

    Raises:
        CheckpointError: the map does not hold the sparsity, or the model is already cut deeper.
    """
    model = copy.deepcopy(model)
    remove_units(model, sparsity)
    return model


def cut_ever_deeper(model: PrunableEncoder) -> Iterator[tuple[int, PrunableEncoder]]:
    """Each of SPARSITIES (percent) and a sorted model cut at it: one copy, which loses more units each time."""
    model = copy.deepcopy(model)
    for sparsity in SPARSITIES:
        remove_units(model, sparsity)
        yield sparsity, model


def remove_units(model: PrunableEncoder, sparsity: int) -> None:
    """Cut a sorted model at a sparsity (percent), in place.

    Raises:
        CheckpointError: the map does not hold the sparsity, or the model is already cut deeper.
    """
    now = sparsity_of(model.config)
    if sparsity < now:
        raise CheckpointError(f"a model cut at {now} % cannot be cut at {sparsity} %")
    # sorted units: the first of each layer stay
    for layer, (heads, neurons) in zip(model.layers, kept_units(model.config, sparsity), strict=True):
        layer.keep_units(torch.arange(heads, device=model.device), torch.arange(neurons, device=model.device))
    # from now on it can only be cut deeper
    if getattr(model.config, "sparsity_map", None):
        model.config.sparsity = str(sparsity)
        model.config.sparsity_map = {s: units for s, units in model.config.sparsity_map.items() if int(s) >= sparsity}


def chosen_layers(choice: str, kept: int, layers: int) -> list[int]:
    """Which layers a layer-dropped student keeps.

    Args:
        choice: "first" (the paper's), "last", "spaced" (evenly, the first and the last among them), or "0,3,7,11".
        kept: how many layers to keep.
        layers: how many the model has.

    Raises:
        CheckpointError: the model has fewer layers, or not one that is named.
    """
    if kept > layers:
        raise CheckpointError(f"the model has only {layers} layers")
    if choice == "first":
        return list(range(kept))
    if choice == "last":
        return list(range(layers - kept, layers))
    if choice == "spaced":
        return [round(index * (layers - 1) / max(1, kept - 1)) for index in range(kept)]
    named = [int(layer) for layer in choice.split(",")]
    if named[-1] >= layers:
        raise CheckpointError(f"the model's layers go from 0 to {layers - 1}")
    return named


def drop_layers(model: PrunableEncoder, kept: list[int]) -> PrunableEncoder:
    """A copy with these layers only, in this order; embeddings and classifier stay."""
    model = copy.deepcopy(model)
    model.replace_layers(nn.ModuleList(model.layers[layer] for layer in kept))
    model.config.num_hidden_layers = len(kept)
    if getattr(model.config, "sparsity_map", None):
        # the counts at other sparsities no longer add up to their percentages: keep only those of the present widths
        sparsity = str(sparsity_of(model.config))
        present = model.config.sparsity_map[sparsity]
        widths = {
            kind: {str(new): present[kind][str(old)] for new, old in enumerate(kept) if str(old) in present[kind]}
            for kind in Units._fields
        }
        model.config.sparsity_map = {sparsity: widths}
    return model


def initial_student(
    model: PrunableEncoder, layers: int, sparsity: int | None, layer_choice: str = "first"
) -> PrunableEncoder:
    """The student before distillation: cut at a sparsity (percent) if one is given, else so many layers."""
    if sparsity is not None:
        return cut(model, sparsity)
    return drop_layers(model, chosen_layers(layer_choice, layers, len(model.layers)))
