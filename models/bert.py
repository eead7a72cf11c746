"""BERT, and the encoders that compute as BERT does, with attention heads and FFN neurons that can be masked and cut.

    from models import PrunableBert
    student = PrunableBert.from_pretrained("outputs/distil/parameter_pruned/kd_70_rte/ckpt")

Masks: one number per attention head, (L, H), and per FFN neuron, (L, F). 1 KEEPS, 0 REMOVES.
Shapes: B examples, T tokens, D hidden size, L layers, H heads, F neurons (intermediate size), C classes; C = 1 is
regression. Parameter names are those of Hugging Face's BERT; models/families.py has those of the other encoders.
"""

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.dropout import Dropout
from models.encoder import Config, PrunableEncoder, activation, classifier
from models.linear import Linear, select
from models.units import kept_units, sparsity_of

warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # a layer that cutting has emptied


class Embeddings(nn.Module):
    """Word + position + token-type embeddings, layer norm, dropout; as wide as the layers (D), or projected to it."""

    def __init__(self, config: Config):
        super().__init__()
        width = getattr(config, "embedding_size", config.hidden_size)
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.project = nn.Identity() if width == config.hidden_size else Linear(width, config.hidden_size)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:  # (B, T), (B, T) -> (B, T, D)
        hidden = self.word_embeddings(input_ids)
        if self.token_type_embeddings is not None:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden = hidden + self.token_type_embeddings(types)
        hidden = hidden + self.position_embeddings.weight[: input_ids.shape[1]]
        return self.project(self.dropout(self.LayerNorm(hidden)))


class RelativeBias(nn.Embedding):
    """A number for each head and bucket of distances between two tokens, (buckets, H), shared by all layers: MPNet's.

    Half of the buckets are for tokens that come later. Of each half, the first half are the distances themselves, the
    others grow by equal factors up to FARTHEST tokens, as in T5 (arXiv:1910.10683, section 2.1). The library's class
    uses BUCKETS, however many the table has.
    """

    BUCKETS = 32
    FARTHEST = 128

    def forward(self, tokens: int) -> Tensor:
        """What is added to the attention scores of so many tokens: (H, T, T), from a query (row) to a key."""
        place = torch.arange(tokens, device=self.weight.device)
        distance = place - place[:, None]  # (T, T)
        half = self.BUCKETS // 2
        near = half // 2
        far = distance.abs().clamp(min=1).float().div(near).log().div(math.log(self.FARTHEST / near))
        far = (near + (far * (half - near)).long()).clamp(max=half - 1)
        bucket = torch.where(distance.abs() < near, distance.abs(), far) + half * (distance > 0)
        return super().forward(bucket).permute(2, 0, 1)


class SelfAttention(nn.Module):
    """Query, key and value of the heads that are left, and their attention."""

    exact_shortcuts = True  # else attention is computed in separate steps, and in the last layer for all tokens

    def __init__(self, config: Config, heads: int):
        super().__init__()
        self.heads = heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.query = Linear(config.hidden_size, heads * self.head_dim)
        self.key = Linear(config.hidden_size, heads * self.head_dim)
        self.value = Linear(config.hidden_size, heads * self.head_dim)
        self.dropout = Dropout(config.attention_probs_dropout_prob)
        if hasattr(config, "relative_attention_num_buckets"):
            # which columns of RelativeBias are these heads', whatever sorting and cutting have done to them
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
        """With one query an example, it is cheaper to project the query into the tokens' space, and what it gathers
        back out of it, than to project every token to keys and values: (W_k h) q = h (W_k^T q)."""
        split = (self.heads, self.head_dim)
        query = self.query(hidden[:, 0]).unflatten(-1, split)  # (B, H, head_dim)
        folded = torch.einsum("bhs,hsd->bhd", query, self.key.weight.unflatten(0, split))
        scores = folded @ hidden.transpose(1, 2)  # (B, H, T)
        scores = scores + (query * self.key.bias.unflatten(0, split)).sum(-1, keepdim=True)
        scores = scores / self.head_dim**0.5 + attention_bias[:, :, 0]
        attention = self.dropout(scores.softmax(-1))
        value = torch.einsum("bhd,hsd->bhs", attention @ hidden, self.value.weight.unflatten(0, split))
        return (value + attention.sum(-1, keepdim=True) * self.value.bias.unflatten(0, split))[:, None]


class Residual(nn.Module):
    """LayerNorm(residual + dropout(dense(hidden))): what follows the attention and what follows the FFN."""

    def __init__(self, config: Config, width: int):
        super().__init__()
        self.dense = Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
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

    # names by which the rest of the code knows what Hugging Face's checkpoints call otherwise

    @property
    def self_attention(self) -> SelfAttention:
        """Queries, keys, values and their attention."""
        return self.attention["self"]

    @property
    def attention_out(self) -> Residual:
        """What follows the attention."""
        return self.attention["output"]

    @property
    def ffn_in(self) -> Linear:
        """D -> neurons."""
        return self.intermediate["dense"]

    @property
    def ffn_out(self) -> Residual:
        """What follows the neurons."""
        return self.output

    @property
    def widths(self) -> tuple[int, int]:
        """Heads and neurons that are left."""
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
        if position_bias is not None:
            queries = slice(1 if cls_only else None)
            attention_bias = attention_bias + position_bias[self.self_attention.bias_columns, queries]  # (B, H, T, T)
        context = self.self_attention(hidden, attention_bias, head_mask, cls_only)
        attended = self.attention_out(context, hidden[:, :1] if cls_only else hidden)
        neurons = self.activation(self.ffn_in(attended))  # (B, T, F)
        if neuron_mask is not None:
            neurons = neurons * neuron_mask[..., None, : neurons.shape[-1]]
        return self.ffn_out(neurons, attended)

    def keep_units(self, heads: Tensor, neurons: Tensor) -> None:
        """Keep these heads and neurons, in this order: indices (heads kept,) and (neurons kept,). In place."""
        attention = self.self_attention
        columns = torch.arange(attention.heads * attention.head_dim, device=heads.device)
        columns = columns.unflatten(0, (attention.heads, attention.head_dim))[heads].flatten()
        for linear in (attention.query, attention.key, attention.value):
            select(linear, columns, dim=0)
        select(self.attention_out.dense, columns, dim=1)
        select(self.ffn_in, neurons, dim=0)
        select(self.ffn_out.dense, neurons, dim=1)
        attention.heads = len(heads)
        if hasattr(attention, "bias_columns"):
            attention.bias_columns = attention.bias_columns[heads]

    def restore_head_order(self) -> None:
        """Put sorted heads back where they were, if they share RelativeBias with other layers. In place."""
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
        """Where queries, keys and values are computed: name -> module, and which columns of its output they are."""
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
    """BERT encoder and classifier, and all that compute as it does once their weights have its names."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.bert = Encoder(config)
        self.cls = classifier(config)
        self.init_weights()

    @property
    def embeddings(self) -> Embeddings:
        """Token ids -> (B, T, D)."""
        return self.bert.embeddings

    @property
    def layers(self) -> nn.ModuleList:
        """The L layers, first to last."""
        return self.bert.encoder["layer"]

    def replace_layers(self, layers: nn.ModuleList) -> None:
        """Put others in their place."""
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
        attention_bias = hidden.new_zeros(input_ids.shape)
        if attention_mask is not None:
            attention_bias = attention_bias.masked_fill(attention_mask == 0, -torch.inf)
        attention_bias = attention_bias[:, None, None]  # (B, 1, 1, T)
        position_bias = None
        if "relative_attention_bias" in self.bert.encoder:
            position_bias = self.bert.encoder["relative_attention_bias"](input_ids.shape[1]).to(hidden.dtype)
        # taken apart at once, so that their gradient is put together at once
        no_masks = [None] * len(self.layers)
        head_masks, neuron_masks = (no_masks if m is None else m.unbind(-2) for m in (head_mask, neuron_mask))
        for index, layer in enumerate(self.layers):
            # only [CLS] feeds the classifier, so the last layer computes that one token
            is_last = index == len(self.layers) - 1
            cls_only = is_last and layer.self_attention.exact_shortcuts and not self.every_token
            hidden = layer(hidden, attention_bias, head_masks[index], neuron_masks[index], position_bias, cls_only)
        return self.cls(hidden[:, 0])
