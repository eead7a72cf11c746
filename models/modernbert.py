"""ModernBERT with attention heads and GeGLU neurons that can be masked and cut.

    from models import load_model
    teacher = load_model("outputs/finetune/ft_rte/ckpt", ("not_entailment", "entailment"))

Warner et al. 2024 (arXiv:2412.13663): norms before attention and FFN, positions as rotations of queries and keys
(RoPE), and two kinds of layers, full attention and sliding windows. A neuron is a GeGLU product of two rows of Wi.

Masks: one number per attention head, (L, H), and per FFN neuron, (L, F). 1 KEEPS, 0 REMOVES.
Shapes: B examples, T tokens, D hidden size, L layers, H heads, F neurons (intermediate size), C classes; C = 1 is
regression. Parameter names are Hugging Face's, but for the norms', which are BERT's; models/families.py has the table.
"""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.dropout import Dropout
from models.encoder import Config, Embedding, PrunableEncoder, activation
from models.linear import Linear, select
from models.rotary import SLIDING, AttentionInputs, attention_inputs, layer_types, rope_parameters
from models.units import CheckpointError, kept_units, sparsity_of

POOLINGS = ("cls", "mean")  # the classifier's input: the first token's state, or the mean of all tokens'


def norm(config: Config) -> nn.LayerNorm:
    """A layer norm over the hidden size, (..., D), with the configuration's epsilon and bias."""
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


class Embeddings(nn.Module):
    """Word embeddings, layer norm, dropout; positions come in by RoPE in each layer."""

    def __init__(self, config: Config):
        super().__init__()
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.LayerNorm = norm(config)
        self.dropout = Dropout(config.embedding_dropout)

    def forward(self, input_ids: Tensor) -> Tensor:  # (B, T) -> (B, T, D)
        return self.dropout(self.LayerNorm(self.word_embeddings(input_ids)))


class SelfAttention(nn.Module):
    """Queries, keys and values of the heads that are left, their attention and its output projection."""

    exact_shortcuts = True  # False: attention in separate steps, and in the last layer for all tokens

    def __init__(self, config: Config, heads: int, window: int | None):
        super().__init__()
        self.heads = heads
        self.window = window  # tokens on either side that a query attends to; None for all
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.Wqkv = Linear(config.hidden_size, 3 * heads * self.head_dim, bias=config.attention_bias)
        self.Wo = Linear(heads * self.head_dim, config.hidden_size, bias=config.attention_bias)
        self.dropout = Dropout(config.attention_dropout)

    def forward(self, hidden: Tensor, inputs: AttentionInputs, head_mask: Tensor | None, cls_only: bool) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, 1, D) for [CLS] only."""
        if self.heads == 0:  # all heads cut: the output projection sees nothing and adds its bias, if it has one
            # a slice, so that the norm before has a gradient, 0: training on several processes waits for each
            seen = hidden[:, :1] if cls_only else hidden
            context = seen.unflatten(-1, (-1, self.head_dim))[:, :, :0]
        else:
            context = (self._attend_cls if cls_only else self._attend_all)(hidden, inputs)  # (B, T, H, head_dim)
        if head_mask is not None:
            context = context * head_mask[..., None, : self.heads, None]
        return self.dropout(self.Wo(context.flatten(2)))

    def _attend_all(self, hidden: Tensor, inputs: AttentionInputs) -> Tensor:  # -> (B, T, H, head_dim)
        split = self.Wqkv(hidden).unflatten(-1, (3, self.heads, self.head_dim))  # (B, T, 3, H, head_dim)
        query, key = inputs.rotate(split[:, :, :2]).transpose(1, 3).unbind(2)  # (B, H, T, head_dim)
        value = split[:, :, 2].transpose(1, 2)  # (B, H, T, head_dim)
        if not self.exact_shortcuts or (self.training and hidden.device.type == "cpu"):
            scores = (query / self.head_dim**0.5) @ key.transpose(2, 3) + inputs.attention_bias  # (B, H, T, T)
            return (self.dropout(scores.softmax(-1)) @ value).transpose(1, 2)
        dropout = self.dropout.p if self.training else 0.0
        bias = inputs.attention_bias.to(query.dtype)
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        return context.transpose(1, 2)

    def _attend_cls(self, hidden: Tensor, inputs: AttentionInputs) -> Tensor:  # -> (B, 1, H, head_dim)
        """The same for the query of [CLS] alone, whose position, 0, rotates nothing.

        Keys are those of the tokens that it attends to; the tokens' weighted sum is projected to one value.
        """
        if self.window is not None:
            hidden = hidden[:, : self.window + 1]
        split = (3, self.heads, self.head_dim)
        of_query, of_key, of_value = self.Wqkv.weight.unflatten(0, split)  # (H, head_dim, D) each
        biases = [None] * 3 if self.Wqkv.bias is None else self.Wqkv.bias.unflatten(0, split).flatten(1).unbind()
        query = F.linear(hidden[:, 0], of_query.flatten(0, 1), biases[0]).unflatten(-1, split[1:])  # (B, H, head_dim)
        key = F.linear(hidden, of_key.flatten(0, 1), biases[1]).unflatten(-1, split[1:])
        key = inputs.rotate(key)  # (B, T, H, head_dim)
        scores = torch.einsum("bhs,bths->bht", query, key) / self.head_dim**0.5  # (B, H, T)
        # the tokens' weighted sum, then its value; weights do not sum to 1 after dropout, so neither do biases
        attention = self.dropout((scores + inputs.attention_bias[:, :, 0, : hidden.shape[1]]).softmax(-1))
        context = torch.einsum("bhd,hsd->bhs", attention @ hidden, of_value)  # (B, H, head_dim)
        if biases[2] is not None:
            context = context + attention.sum(-1, keepdim=True) * biases[2].unflatten(0, split[1:])
        return context[:, None]


class FeedForward(nn.Module):
    """Wo(dropout(activation(first half of Wi) * second half)): row i and row i + neurons of Wi are one neuron."""

    def __init__(self, config: Config, neurons: int):
        super().__init__()
        self.neurons = neurons
        self.Wi = Linear(config.hidden_size, 2 * neurons, bias=config.mlp_bias)
        self.Wo = Linear(neurons, config.hidden_size, bias=config.mlp_bias)
        self.activation = activation(config.hidden_activation)
        self.dropout = Dropout(config.mlp_dropout)

    def forward(self, hidden: Tensor, neuron_mask: Tensor | None) -> Tensor:  # (B, T, D) -> (B, T, D)
        rows = self.Wi(hidden)  # (B, T, 2 F)
        neurons = self.activation(rows[..., : self.neurons]) * rows[..., self.neurons :]  # (B, T, F)
        if neuron_mask is not None:
            neurons = neurons * neuron_mask[..., None, : self.neurons]
        return self.Wo(self.dropout(neurons))


class Layer(nn.Module):
    """Attention over `heads` heads, then an FFN of `neurons` neurons; either may be 0."""

    def __init__(self, config: Config, index: int, heads: int, neurons: int):
        super().__init__()
        self.kind = config.layer_types[index]
        window = config.local_attention // 2 if self.kind == SLIDING else None
        self.attn_LayerNorm = norm(config) if index else nn.Identity()  # the embeddings' norm is just before it
        self.attn = SelfAttention(config, heads, window)
        self.mlp_LayerNorm = norm(config)
        self.mlp = FeedForward(config, neurons)

    @property
    def self_attention(self) -> SelfAttention:
        """Query, key and value projections, the attention itself and its output projection."""
        return self.attn

    @property
    def widths(self) -> tuple[int, int]:
        """How many heads and neurons are left."""
        return self.attn.heads, self.mlp.neurons

    def forward(
        self,
        hidden: Tensor,
        inputs: AttentionInputs,
        head_mask: Tensor | None = None,
        neuron_mask: Tensor | None = None,
        cls_only: bool = False,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, 1, D) for [CLS] only."""
        context = self.attn(self.attn_LayerNorm(hidden), inputs, head_mask, cls_only)
        hidden = (hidden[:, :1] if cls_only else hidden) + context
        return hidden + self.mlp(self.mlp_LayerNorm(hidden), neuron_mask)

    def keep_units(self, heads: Tensor, neurons: Tensor) -> None:
        """Keep these heads and neurons, in this order: indices (heads kept,) and (neurons kept,). In place."""
        attn, mlp = self.attn, self.mlp
        # a head is head_dim rows of each third of Wqkv, and as many columns of Wo
        rows = torch.arange(3 * attn.heads * attn.head_dim, device=heads.device)
        rows = rows.unflatten(0, (3, attn.heads, attn.head_dim))[:, heads]
        select(attn.Wqkv, rows.flatten(), dim=0)
        select(attn.Wo, rows[0].flatten(), dim=1)
        # a neuron is a row of each half of Wi, and a column of its Wo
        select(mlp.Wi, torch.cat([neurons, neurons + mlp.neurons]), dim=0)
        select(mlp.Wo, neurons, dim=1)
        attn.heads, mlp.neurons = len(heads), len(neurons)

    def restore_head_order(self) -> None:
        """Does nothing: the layers share no table of the heads, whose order is free."""

    def unit_weights(self) -> tuple[Tensor, Tensor]:
        """All weights of each head, (H, 4 * head_dim * D), and of each neuron, (F, 3 * D)."""
        attn, mlp = self.attn, self.mlp
        inputs = attn.Wqkv.weight.unflatten(0, (3, attn.heads, attn.head_dim))
        output = attn.Wo.weight.t().unflatten(0, (1, attn.heads, attn.head_dim))
        heads = torch.cat([inputs, output]).transpose(0, 1)  # (H, 4, head_dim, D)
        neurons = torch.cat([*mlp.Wi.weight.unflatten(0, (2, mlp.neurons)), mlp.Wo.weight.t()], dim=1)
        return heads.flatten(1), neurons

    def projections(self) -> dict[str, tuple[nn.Module, slice]]:
        """query, key and value -> the module that computes it, before RoPE, and the columns of its output."""
        width = self.attn.heads * self.attn.head_dim
        names = ("query", "key", "value")
        return {name: (self.attn.Wqkv, slice(part * width, (part + 1) * width)) for part, name in enumerate(names)}


class Encoder(nn.Module):
    """Embeddings, layers and the norm after the last."""

    def __init__(self, config: Config):
        super().__init__()
        self.embeddings = Embeddings(config)
        widths = kept_units(config, sparsity_of(config))
        self.layers = nn.ModuleList(Layer(config, index, *width) for index, width in enumerate(widths))
        self.final_LayerNorm = norm(config)


class PrunableModernBert(PrunableEncoder):
    """ModernBERT encoder, and a classifier on the [CLS] state or on the mean of all tokens' states."""

    def __init__(self, config: Config):
        """Raises CheckpointError for a configuration that this class does not implement."""
        super().__init__(config)
        # older forms of the configuration become today's; what is not implemented is refused
        config.layer_types = layer_types(config)
        config.rope_parameters = rope_parameters(config)
        if config.classifier_pooling not in POOLINGS:
            pooling = f"classifier_pooling {config.classifier_pooling!r}"
            raise CheckpointError(f"{pooling} of config.json: expected {' or '.join(POOLINGS)}")
        head_dim = config.hidden_size // config.num_attention_heads
        if head_dim % 2:
            raise CheckpointError(f"config.json: heads of {head_dim} numbers, expected an even number for RoPE")
        self.bert = Encoder(config)
        self.cls = nn.Sequential(
            OrderedDict(
                dense=nn.Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias),
                activation=activation(config.classifier_activation),
                LayerNorm=norm(config),
                dropout=nn.Dropout(config.classifier_dropout),
                classifier=nn.Linear(config.hidden_size, config.num_labels),
            )
        )
        self.init_weights()

    @property
    def embeddings(self) -> Embeddings:
        """The module that makes (B, T, D) of token ids."""
        return self.bert.embeddings

    @property
    def layers(self) -> nn.ModuleList:
        """The L layers, first to last."""
        return self.bert.layers

    def replace_layers(self, layers: nn.ModuleList) -> None:
        """Replace all layers by these; each stays full or sliding, and the configuration says which.

        Raises:
            CheckpointError: layer 0, which alone has no norm before its attention, is not the first, or is not there.
        """
        if [isinstance(layer.attn_LayerNorm, nn.Identity) for layer in layers] != [not i for i in range(len(layers))]:
            raise CheckpointError("layer 0 must be kept, once and first: alone of all it has no norm before attention")
        self.bert.layers = layers
        self.config.layer_types = [layer.kind for layer in layers]
        vars(self.config).pop("global_attn_every_n_layers", None)  # the older form of layer_types

    def draw(self, part: nn.Linear | nn.Embedding) -> None:
        """Draw a part's weight as Hugging Face's class does: with a smaller deviation before the residual stream."""
        std = self.config.initializer_range
        if any(part is out for layer in self.layers for out in (layer.attn.Wo, layer.mlp.Wo)) or part is self.cls.dense:
            std /= math.sqrt(2 * self.config.num_hidden_layers)
        if part is self.cls.classifier:
            std = self.config.hidden_size**-0.5
        cutoff = self.config.initializer_cutoff_factor
        with torch.no_grad():
            nn.init.trunc_normal_(part.weight, a=-cutoff, b=cutoff).mul_(std)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        neuron_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, C) of token ids and attention mask, each (B, T); token types are ignored.

        The attention mask is 1 on tokens, 0 on padding; without it, all are tokens.
        head_mask (L, H) and neuron_mask (L, F) multiply the outputs of heads and neurons: 1 keeps, 0 removes. With a
        leading batch dimension, (B, L, H) and (B, L, F), each example has masks of its own.
        """
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.embeddings(input_ids)  # (B, T, D)
        # masks and rotations, the same for all layers of a kind
        shared = {}
        for layer in self.layers:
            if layer.kind not in shared:
                theta = self.config.rope_parameters[layer.kind]["rope_theta"]
                shared[layer.kind] = attention_inputs(attention_mask, layer.attn.window, theta, layer.attn.head_dim)
        # a mask per layer, split by one unbind so that one stack assembles the gradient
        no_masks = [None] * len(self.layers)
        head_masks, neuron_masks = (no_masks if m is None else m.unbind(-2) for m in (head_mask, neuron_mask))
        for index, layer in enumerate(self.layers):
            # if only [CLS] feeds the classifier, the last layer computes that one token
            is_last = index == len(self.layers) - 1 and self.config.classifier_pooling == "cls"
            cls_only = is_last and layer.attn.exact_shortcuts and not self.every_token
            hidden = layer(hidden, shared[layer.kind], head_masks[index], neuron_masks[index], cls_only)
        hidden = self.bert.final_LayerNorm(hidden)
        if self.config.classifier_pooling == "cls":
            return self.cls(hidden[:, 0])
        share = attention_mask / attention_mask.sum(1, keepdim=True)  # (B, T), of each token
        return self.cls((hidden * share[..., None]).sum(1))
