"""Heads and neurons as a pair, and how many of them are left in each layer of a cut model.

1 KEEPS, 0 REMOVES; sparsity is a percentage of units removed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line: which, what was found, what was expected."""


class Units(NamedTuple):
    """One value per head and per neuron: the form of masks, gradients and scores."""

    head: Tensor  # (L, H)
    neuron: Tensor  # (L, F)

    def map(self, function: Callable[..., Tensor], *others: "Units") -> "Units":
        """Apply a function to the head tensors, then to the neuron tensors, of this pair and the others."""
        return Units(*(function(*tensors) for tensors in zip(self, *others, strict=True)))


def sparsity_of(config: Any) -> int:
    """The percentage of units removed from a model of this configuration; CheckpointError if it is no percentage."""
    sparsity = str(getattr(config, "sparsity", 0))
    if not sparsity.isdigit():
        raise CheckpointError(f"sparsity {sparsity!r} of config.json: expected a percentage")
    return int(sparsity)


def kept_units(config: Any, sparsity: int) -> list[tuple[int, int]]:
    """Heads and neurons left in each layer at a sparsity that the configuration's sparsity map holds.

    Heads go whole; neurons go in multiples of 8, the nearest to what the map says, as hardware likes it.

    Args:
        config: `sparsity_map` as in config.json, keys are strings and absent layers lose nothing.
        sparsity: percent of units removed, 0 to 99; CheckpointError if the map does not hold it.
    """
    sparsity_map = getattr(config, "sparsity_map", None) or {"0": {"head": {}, "neuron": {}}}
    if not isinstance(sparsity_map, dict) or not all(str(key).isdigit() for key in sparsity_map):
        raise CheckpointError("sparsity_map of config.json: expected percentages and the units removed at each")
    if str(sparsity) not in sparsity_map:
        held = ", ".join(sorted(sparsity_map, key=int))
        raise CheckpointError(f"sparsity {sparsity} is not in the checkpoint's sparsity map, which holds {held}")
    heads = config.num_attention_heads
    neurons = config.intermediate_size
    widths = []
    for layer in range(config.num_hidden_layers):
        heads_gone = _removed(sparsity_map, sparsity, "head", layer, heads)
        neurons_gone = _removed(sparsity_map, sparsity, "neuron", layer, neurons)
        widths.append((heads - heads_gone, max(0, neurons - 8 * round(neurons_gone / 8))))
    return widths


def _removed(sparsity_map: dict, sparsity: int, kind: str, layer: int, units: int) -> int:
    """How many heads or neurons the map removes from a layer."""
    try:
        removed = sparsity_map[str(sparsity)][kind].get(str(layer), 0)
    except (KeyError, TypeError, AttributeError):
        raise CheckpointError(f"sparsity_map of config.json: no count of {kind}s removed at {sparsity} %") from None
    if not isinstance(removed, int) or not 0 <= removed <= units:
        raise CheckpointError(f"sparsity_map of config.json: removes {removed} of {units} {kind}s in layer {layer}")
    return removed
