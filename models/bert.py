"""BERT whose attention heads and FFN neurons can be masked and cut: encoder and classifier.

    from models import PrunableBert
    student = PrunableBert.from_pretrained("outputs/distil/parameter_pruned/kd_70_rte/ckpt")

Masks: one number per attention head, (L, H), and per FFN neuron, (L, F). 1 KEEPS, 0 REMOVES.
Shapes: B examples, T tokens, D hidden size, L layers, H heads, F neurons (intermediate size), C classes; C = 1 is
regression. Parameter names are those of Hugging Face's BERT; transformers lends the configuration and the file formats,
models/checkpoint.py loads what others have saved.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, PreTrainedModel
from transformers.activations import ACT2FN

from models.dropout import Dropout
from models.linear import Linear
from models.units import kept_units

warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # a layer that cutting has emptied


class Embeddings(nn.Module):
    """Word + position + token-type embeddings, layer norm, dropout."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:  # (B, T), (B, T) -> (B, T, D)
        hidden = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        hidden = hidden + self.position_embeddings.weight[: input_ids.shape[1]]
        return self.dropout(self.LayerNorm(hidden))


class SelfAttention(nn.Module):
    """Query, key and value of the heads that are left, and their attention."""

    plain = False  # whether attention is computed in separate steps, and for all tokens in the last layer, too

    def __init__(self, config: BertConfig, heads: int):
        super().__init__()
        self.heads, self.size = heads, config.hidden_size // config.num_attention_heads
        self.query = Linear(config.hidden_size, heads * self.size)
        self.key = Linear(config.hidden_size, heads * self.size)
        self.value = Linear(config.hidden_size, heads * self.size)
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def forward(self, hidden: Tensor, masked: Tensor, head_mask: Tensor | None, only_first: bool) -> Tensor:
        """(B, T, D), (B, 1, 1, T) of 0 or -inf -> (B, T, H * size), or (B, 1, H * size) for the first token only."""
        if self.heads == 0:  # all heads cut: the output projection sees nothing and adds its bias
            return hidden.new_zeros(hidden.shape[0], 1 if only_first else hidden.shape[1], 0)
        context = (self._of_first if only_first else self._of_all)(hidden, masked)  # (B, T, H, size)
        if head_mask is not None:
            context = context * head_mask[..., None, : self.heads, None]
        return context.flatten(2)

    def _of_all(self, hidden: Tensor, masked: Tensor) -> Tensor:  # -> (B, T, H, size)
        query, key, value = (
            linear(hidden).unflatten(-1, (self.heads, self.size)).transpose(1, 2)  # (B, H, T, size)
            for linear in (self.query, self.key, self.value)
        )
        if self.plain or (self.training and hidden.device.type == "cpu"):
            scores = (query / self.size**0.5) @ key.transpose(2, 3)  # (B, H, T, T)
            scores += masked
            return (self.dropout(scores.softmax(-1)) @ value).transpose(1, 2)
        dropout = self.dropout.p if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=masked, dropout_p=dropout)
        return context.transpose(1, 2)

    def _of_first(self, hidden: Tensor, masked: Tensor) -> Tensor:  # -> (B, 1, H, size)
        """With one query an example, it is cheaper to project the query into the tokens' space, and what it gathers
        back out of it, than to project every token to keys and values: (W_k h) q = h (W_k^T q)."""
        split = (self.heads, self.size)
        query = self.query(hidden[:, 0]).unflatten(-1, split)  # (B, H, size)
        folded = torch.einsum("bhs,hsd->bhd", query, self.key.weight.unflatten(0, split))
        scores = folded @ hidden.transpose(1, 2)  # (B, H, T)
        scores = scores + (query * self.key.bias.unflatten(0, split)).sum(-1, keepdim=True)
        scores = scores / self.size**0.5 + masked[:, 0]
        attention = self.dropout(scores.softmax(-1))
        value = torch.einsum("bhd,hsd->bhs", attention @ hidden, self.value.weight.unflatten(0, split))
        return (value + attention.sum(-1, keepdim=True) * self.value.bias.unflatten(0, split))[:, None]


class Residual(nn.Module):
    """LayerNorm(residual + dropout(dense(hidden))): what follows the attention and what follows the FFN."""

    def __init__(self, config: BertConfig, width: int):
        super().__init__()
        self.dense = Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dropout(self.dense(hidden)))


class Layer(nn.Module):
    """Attention over `heads` heads, then an FFN of `neurons` neurons; either may be 0."""

    def __init__(self, config: BertConfig, heads: int, neurons: int):
        super().__init__()
        attention = SelfAttention(config, heads)
        self.attention = nn.ModuleDict({"self": attention, "output": Residual(config, heads * attention.size)})
        self.intermediate = nn.ModuleDict({"dense": Linear(config.hidden_size, neurons)})
        self.activation = ACT2FN[config.hidden_act]
        self.output = Residual(config, neurons)

    def forward(
        self,
        hidden: Tensor,
        masked: Tensor,
        head_mask: Tensor | None = None,
        neuron_mask: Tensor | None = None,
        only_first: bool = False,
    ) -> Tensor:
        context = self.attention["self"](hidden, masked, head_mask, only_first)
        attended = self.attention["output"](context, hidden[:, :1] if only_first else hidden)
        neurons = self.activation(self.intermediate["dense"](attended))  # (B, T, F)
        if neuron_mask is not None:
            neurons = neurons * neuron_mask[..., None, : neurons.shape[-1]]
        return self.output(neurons, attended)


class Encoder(nn.Module):
    """Embeddings and layers, under the names of Hugging Face's checkpoints."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        widths = kept_units(config, int(getattr(config, "sparsity", 0)))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config, *width) for width in widths)})


class PrunableBert(PreTrainedModel):
    """BERT encoder and classifier on the [CLS] state.

    `config.sparsity` (a string, percent) and `config.sparsity_map` give each layer's width; without them it is full.
    """

    config_class = BertConfig
    base_model_prefix = "bert"
    _supports_sdpa = True
    every_token = False  # whether the last layer answers for all tokens, which the logits do not need

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.bert = Encoder(config)
        self.cls = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.Tanh(),
            nn.Dropout(0.1),
            nn.Linear(config.hidden_size, config.num_labels),
        )
        self.post_init()

    @property
    def layers(self) -> nn.ModuleList:
        """The L layers, first to last."""
        return self.bert.encoder["layer"]

    def compute_plainly(self, plain: bool = True) -> None:
        """Switch to the arithmetic of the paper's code, slower and equal, or back."""
        for module in self.modules():
            if hasattr(module, "plain"):
                module.plain = plain

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings, under the name that the library knows."""
        return self.bert.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put others there."""
        self.bert.embeddings.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        attention_mask: Tensor,
        head_mask: Tensor | None = None,
        neuron_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, C) of token ids, token types and attention mask, each (B, T); the attention mask is 1 on tokens.

        head_mask (L, H) and neuron_mask (L, F) multiply what heads and neurons say: 1 keeps, 0 removes. With a leading
        batch dimension, (B, L, H) and (B, L, F), each example has masks of its own.
        """
        hidden = self.bert.embeddings(input_ids, token_type_ids)  # (B, T, D)
        masked = hidden.new_zeros(attention_mask.shape).masked_fill_(attention_mask == 0, -torch.inf)[:, None, None]
        last = len(self.layers) - 1
        # taken apart at once, so that their gradient is put together at once
        heads, neurons = ([None] * (last + 1) if mask is None else mask.unbind(-2) for mask in (head_mask, neuron_mask))
        for index, layer in enumerate(self.layers):
            # only [CLS] feeds the classifier, so the last layer answers for that one token
            only_first = index == last and not (self.every_token or layer.attention["self"].plain)
            hidden = layer(hidden, masked, heads[index], neurons[index], only_first)
        return self.cls(hidden[:, 0])
