"""BERT, and the encoders that compute as BERT does, with attention heads and FFN neurons that can be masked and cut.

    from models import PrunableBert
    student = PrunableBert.from_pretrained("outputs/distil/parameter_pruned/kd_70_rte/ckpt")
    logits = student(input_ids, token_type_ids, attention_mask)

Masks: one number per attention head, (L, H), and per FFN neuron, (L, F). 1 KEEPS, 0 REMOVES.
Shapes: B examples, T tokens, D hidden size, L layers, H heads, F neurons (intermediate size), C classes; C = 1 is
regression. Parameter names are those of Hugging Face's BERT; models/families.py has those of the other encoders.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.dropout import Dropout
from models.encoder import Config, Embedding, PrunableEncoder, activation, classifier
from models.linear import Linear, select
from models.relative_bias import RelativeBias
from models.units import kept_units, sparsity_of

warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # a layer that cutting has emptied


class Embeddings(nn.Module):
    """Word + position + token-type embeddings, layer norm, dropout; as wide as the layers (D), or projected to it."""

    def __init__(self, config: Config):
        super().__init__()
        width = getattr(config, "embedding_size", config.hidden_size)
        self.word_embeddings = Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.project = nn.Identity() if width == config.hidden_size else Linear(width, config.hidden_size)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:  # (B, T), (B, T) -> (B, T, D)
        hidden = self.word_embeddings(input_ids)  # (B, T, width)
        if self.token_type_embeddings is not None:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden = hidden + self.token_type_embeddings(types)
        hidden = hidden + self.position_embeddings.weight[: input_ids.shape[1]]
        return self.project(self.dropout(self.LayerNorm(hidden)))  # (B, T, D)


class SelfAttention(nn.Module):
    """Query, key and value of the heads that are left, and their attention."""

    exact_shortcuts = True  # False: attention in separate steps, and in the last layer for all tokens

    def __init__(self, config: Config, heads: int):
        super().__init__()
        self.heads = heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.query = Linear(config.hidden_size, heads * self.head_dim)
        self.key = Linear(config.hidden_size, heads * self.head_dim)
        self.value = Linear(config.hidden_size, heads * self.head_dim)
        self.dropout = Dropout(config.attention_probs_dropout_prob)
        if hasattr(config, "relative_attention_num_buckets"):
            # the columns of RelativeBias that belong to these heads, also after sorting and cutting
            self.register_buffer("bias_columns", torch.arange(heads))

    def forward(self, hidden: Tensor, attention_bias: Tensor, head_mask: Tensor | None, cls_only: bool) -> Tensor:
        """(B, T, D), (B, 1 or H, T, T or 1) -> (B, T, H * head_dim), or (B, 1, H * head_dim) for [CLS] only.

        attention_bias is added to the attention scores: 0, or -inf for padding.
        """
        if self.heads == 0:  # all heads cut: the output projection sees nothing and adds its bias
            return hidden.new_zeros(hidden.shape[0], 1 if cls_only else hidden.shape[1], 0)
        attend = self._attend_cls if cls_only else self._attend_all
        context = attend(hidden, attention_bias)  # (B, T, H, head_dim)
        if head_mask is not None:
            context = context * head_mask[..., None, : self.heads, None]
        return context.flatten(2)

    def _attend_all(self, hidden: Tensor, attention_bias: Tensor) -> Tensor:  # -> (B, T, H, head_dim)
        query, key, value = (
            linear(hidden).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)  # (B, H, T, head_dim)
            for linear in (self.query, self.key, self.value)
        )
        if not self.exact_shortcuts or (self.training and hidden.device.type == "cpu"):
            scores = (query / self.head_dim**0.5) @ key.transpose(2, 3)  # (B, H, T, T)
            scores += attention_bias
            return (self.dropout(scores.softmax(-1)) @ value).transpose(1, 2)
        dropout = self.dropout.p if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_bias, dropout_p=dropout)
        return context.transpose(1, 2)

    def _attend_cls(self, hidden: Tensor, attention_bias: Tensor) -> Tensor:  # -> (B, 1, H, head_dim)
        """The same for the query of [CLS] alone, without projecting every token to keys and values.

        (W_k h) q = h (W_k^T q): the query is projected to the tokens' space, and their weighted sum to a value.
        """
        split = (self.heads, self.head_dim)
        # attention scores
        query = self.query(hidden[:, 0]).unflatten(-1, split)  # (B, H, head_dim)
        folded = torch.einsum("bhs,hsd->bhd", query, self.key.weight.unflatten(0, split))  # W_k^T q, (B, H, D)
        scores = folded @ hidden.transpose(1, 2)  # (B, H, T)
        scores = scores + (query * self.key.bias.unflatten(0, split)).sum(-1, keepdim=True)
        scores = scores / self.head_dim**0.5 + attention_bias[:, :, 0]
        attention = self.dropout(scores.softmax(-1))  # (B, H, T)
        # the tokens' weighted sum, then its value; weights do not sum to 1 after dropout, so neither do biases
        value = torch.einsum("bhd,hsd->bhs", attention @ hidden, self.value.weight.unflatten(0, split))
        context = value + attention.sum(-1, keepdim=True) * self.value.bias.unflatten(0, split)  # (B, H, head_dim)
        return context[:, None]


class Residual(nn.Module):
    """LayerNorm(residual + dropout(dense(hidden))): the output projection of the attention and of the FFN."""

    def __init__(self, config: Config, width: int):
        super().__init__()
        self.dense = Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:  # (B, T, width), (B, T, D) -> (B, T, D)
        return self.LayerNorm(residual + self.dropout(self.dense(hidden)))


class Layer(nn.Module):
    """Attention over `heads` heads, then an FFN of `neurons` neurons; either may be 0."""

    def __init__(self, config: Config, heads: int, neurons: int):
        super().__init__()
        attention = SelfAttention(config, heads)
        self.attention = nn.ModuleDict({"self": attention, "output": Residual(config, heads * attention.head_dim)})
        self.intermediate = nn.ModuleDict({"dense": Linear(config.hidden_size, neurons)})
        self.activation = activation(config.hidden_act)
        self.output = Residual(config, neurons)

    # the attributes above have the names of Hugging Face's checkpoints; the rest of the code uses these

    @property
    def self_attention(self) -> SelfAttention:
        """Query, key and value projections and the attention itself."""
        return self.attention["self"]

    @property
    def attention_out(self) -> Residual:
        """Output projection, dropout, residual and layer norm of the attention."""
        return self.attention["output"]

    @property
    def ffn_in(self) -> Linear:
        """The first linear layer of the FFN, D -> neurons."""
        return self.intermediate["dense"]

    @property
    def ffn_out(self) -> Residual:
        """Output projection, dropout, residual and layer norm of the FFN."""
        return self.output

    @property
    def widths(self) -> tuple[int, int]:
        """How many heads and neurons are left."""
        return self.self_attention.heads, self.ffn_in.out_features

    def forward(
        self,
        hidden: Tensor,
        attention_bias: Tensor,
        head_mask: Tensor | None = None,
        neuron_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        cls_only: bool = False,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, 1, D) for [CLS] only; position_bias is (all heads, T, T)."""
        # attention, with the distances' biases where the family has them
        if position_bias is not None:
            queries = slice(1 if cls_only else None)
            attention_bias = attention_bias + position_bias[self.self_attention.bias_columns, queries]  # (B, H, T, T)
        context = self.self_attention(hidden, attention_bias, head_mask, cls_only)  # (B, T, H * head_dim)
        attended = self.attention_out(context, hidden[:, :1] if cls_only else hidden)  # (B, T, D)
        # FFN
        neurons = self.activation(self.ffn_in(attended))  # (B, T, F)
        if neuron_mask is not None:
            neurons = neurons * neuron_mask[..., None, : neurons.shape[-1]]
        return self.ffn_out(neurons, attended)

    def keep_units(self, heads: Tensor, neurons: Tensor) -> None:
        """Keep these heads and neurons, in this order: indices (heads kept,) and (neurons kept,). In place."""
        # a head is head_dim rows of query, key and value, and as many columns of the output projection
        attention = self.self_attention
        columns = torch.arange(attention.heads * attention.head_dim, device=heads.device)
        columns = columns.unflatten(0, (attention.heads, attention.head_dim))[heads].flatten()
        for linear in (attention.query, attention.key, attention.value):
            select(linear, columns, dim=0)
        select(self.attention_out.dense, columns, dim=1)
        # a neuron is a row of the first linear layer and a column of the second
        select(self.ffn_in, neurons, dim=0)
        select(self.ffn_out.dense, neurons, dim=1)
        attention.heads = len(heads)
        if hasattr(attention, "bias_columns"):
            attention.bias_columns = attention.bias_columns[heads]

    def restore_head_order(self) -> None:
        """Undo the sorting of heads where all layers share one RelativeBias, whose columns are not sorted. In place."""
        if hasattr(self.self_attention, "bias_columns"):
            neurons = torch.arange(self.ffn_in.out_features, device=self.ffn_in.weight.device)
            self.keep_units(self.self_attention.bias_columns.argsort(), neurons)

    def unit_weights(self) -> tuple[Tensor, Tensor]:
        """All weights of each head, (H, 4 * head_dim * D), and of each neuron, (F, 2 * D)."""
        attention = self.self_attention
        inputs = [attention.query.weight, attention.key.weight, attention.value.weight]
        heads = torch.cat([*inputs, self.attention_out.dense.weight.t()], dim=1)
        neurons = torch.cat([self.ffn_in.weight, self.ffn_out.dense.weight.t()], dim=1)
        return heads.unflatten(0, (attention.heads, attention.head_dim)).flatten(1), neurons

    def projections(self) -> dict[str, tuple[nn.Module, slice]]:
        """query, key and value -> the module that computes it, and the columns of its output."""
        return {name: (getattr(self.self_attention, name), slice(None)) for name in ("query", "key", "value")}


class Encoder(nn.Module):
    """Embeddings and layers, under the names of Hugging Face's checkpoints."""

    def __init__(self, config: Config):
        super().__init__()
        self.embeddings = Embeddings(config)
        widths = kept_units(config, sparsity_of(config))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config, *width) for width in widths)})
        if hasattr(config, "relative_attention_num_buckets"):
            buckets = config.relative_attention_num_buckets
            self.encoder["relative_attention_bias"] = RelativeBias(buckets, config.num_attention_heads)


class PrunableBert(PrunableEncoder):
    """BERT encoder and classifier; other families take the same form when models/families.py renames their weights."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.bert = Encoder(config)
        self.cls = classifier(config)
        self.init_weights()

    @property
    def embeddings(self) -> Embeddings:
        """The module that makes (B, T, D) of token ids."""
        return self.bert.embeddings

    @property
    def layers(self) -> nn.ModuleList:
        """The L layers, first to last."""
        return self.bert.encoder["layer"]

    def replace_layers(self, layers: nn.ModuleList) -> None:
        """Replace all layers by these."""
        self.bert.encoder["layer"] = layers

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        neuron_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, C) of token ids, token types and attention mask, each (B, T).

        The attention mask is 1 on tokens, 0 on padding; without it, all are tokens, and without token types all are 0.
        head_mask (L, H) and neuron_mask (L, F) multiply the outputs of heads and neurons: 1 keeps, 0 removes. With a
        leading batch dimension, (B, L, H) and (B, L, F), each example has masks of its own.
        """
        hidden = self.embeddings(input_ids, token_type_ids)  # (B, T, D)
        # padding is masked by -inf, which is added to the attention scores
        attention_bias = hidden.new_zeros(input_ids.shape)
        if attention_mask is not None:
            attention_bias = attention_bias.masked_fill(attention_mask == 0, -torch.inf)
        attention_bias = attention_bias[:, None, None]  # (B, 1, 1, T)
        # MPNet's biases by distance, the same for all layers
        position_bias = None
        if "relative_attention_bias" in self.bert.encoder:
            position_bias = self.bert.encoder["relative_attention_bias"](input_ids.shape[1]).to(hidden.dtype)
        # a mask per layer, split by one unbind so that one stack assembles the gradient
        no_masks = [None] * len(self.layers)
        head_masks, neuron_masks = (no_masks if m is None else m.unbind(-2) for m in (head_mask, neuron_mask))
        for index, layer in enumerate(self.layers):
            # only [CLS] feeds the classifier, so the last layer computes that one token
            is_last = index == len(self.layers) - 1
            cls_only = is_last and layer.self_attention.exact_shortcuts and not self.every_token
            hidden = layer(hidden, attention_bias, head_masks[index], neuron_masks[index], position_bias, cls_only)
        return self.cls(hidden[:, 0])
