"""Attention masks and rotary position embeddings (RoPE) of ModernBERT's two kinds of layers, full and sliding.

config.layer_types, config.rope_parameters = layer_types(config), rope_parameters(config)
inputs = attention_inputs(attention_mask, window=64, theta=10_000.0, head_dim=64)
query = inputs.rotate(query)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.encoder import Config
from models.units import CheckpointError

FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers, as config.json names them
THETA = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}  # older names, and defaults


def layer_types(config: Config) -> list[str]:
    """Each layer's kind: `layer_types`, or in older files full for every n-th layer from the first on, else sliding.

    Raises:
        CheckpointError: no list of kinds, or not one for each layer.
    """
    kinds = getattr(config, "layer_types", None)
    layers = config.num_hidden_layers
    if kinds is None:
        rhythm = getattr(config, "global_attn_every_n_layers", 3)
        if not isinstance(rhythm, int) or rhythm < 1:
            raise CheckpointError(f"global_attn_every_n_layers {rhythm!r} of config.json: expected an integer from 1")
        return [SLIDING if layer % rhythm else FULL for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in THETA for kind in kinds):
        raise CheckpointError(f"layer_types {kinds} of config.json: expected {FULL} or {SLIDING} for {layers} layers")
    return kinds


def rope_parameters(config: Config) -> dict[str, dict[str, Any]]:
    """The base of the rotations for each kind of layer, as transformers 5 writes it; older files have two keys.

    Raises:
        CheckpointError: scaled rotations, or a base that is no number above 0.
    """
    given = getattr(config, "rope_parameters", None) or {}
    if not isinstance(given, dict) or given.keys() - THETA.keys():
        raise CheckpointError(f"rope_parameters {given} of config.json: expected {' and '.join(THETA)}")
    found = {}
    for kind, (key, default) in THETA.items():
        stated = given.get(kind) or {}
        if not isinstance(stated, dict) or stated.get("rope_type", stated.get("type", "default")) != "default":
            raise CheckpointError(f"rope_parameters {given} of config.json: expected rope_type default for each kind")
        theta = stated.get("rope_theta", getattr(config, key, default))
        if theta is None and kind == SLIDING:  # older files mean by null that all layers have the same base
            theta = found[FULL]["rope_theta"]
        if isinstance(theta, bool) or not isinstance(theta, int | float) or theta <= 0:
            raise CheckpointError(f"rope_theta {theta!r} of config.json for {kind}: expected a number above 0")
        found[kind] = {"rope_type": "default", "rope_theta": theta}
    return found


class AttentionInputs(NamedTuple):
    """What all layers of one kind share: which tokens attend to which, and the rotations of queries and keys."""

    attention_bias: Tensor  # (B, 1, 1 or T, T), added to the scores: 0, or -inf where a query does not attend
    cos: Tensor  # (T, head_dim)
    sin: Tensor  # (T, head_dim)

    def rotate(self, vectors: Tensor) -> Tensor:
        """Rotate the pairs (i, i + head_dim / 2) of each vector by its position times a frequency.

        RoFormer, Su et al. 2021 (arXiv:2104.09864), eq. 34. The vectors, (B, t, ..., head_dim), are those of the first
        t tokens.
        """
        shape = (vectors.shape[1], *[1] * (vectors.dim() - 3), vectors.shape[-1])
        cos, sin = (table[: vectors.shape[1]].view(shape) for table in (self.cos, self.sin))
        left, right = vectors.chunk(2, dim=-1)
        return (vectors * cos + torch.cat([-right, left], dim=-1) * sin).to(vectors.dtype)


def attention_inputs(attention_mask: Tensor, window: int | None, theta: float, head_dim: int) -> AttentionInputs:
    """The inputs of layers that attend to so many tokens on either side, None for all; attention_mask is (B, T)."""
    # which tokens attend to which
    position = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    visible = (attention_mask != 0)[:, None, None]  # (B, 1, 1, T)
    if window is not None:
        distance = (position - position[:, None]).abs()  # (T, T)
        # padding attends to itself, since a softmax over nothing is not a number
        visible = (visible & (distance <= window)) | (distance == 0)
    bias = torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, -torch.inf)
    # angles of the rotations, the same for both halves of a vector
    frequencies = 1.0 / theta ** (torch.arange(0, head_dim, 2, device=position.device).float() / head_dim)
    angles = (position.float()[:, None] * frequencies).repeat(1, 2)  # (T, head_dim)
    return AttentionInputs(bias, angles.cos(), angles.sin())
