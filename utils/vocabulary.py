"""Train only the rows of the word embedding that occur in the training set. Exact, and most of the optimizer's work.

with seen_rows(model, examples.tokens) as embedding:
    ...  # train; after each update: embedding.decay *= 1 - lr * weight_decay
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SeenRows(nn.Module):
    """A word embedding (V, D) of which only the rows seen in training, (S, D), are a parameter.

    The others never get a gradient, so that all AdamW would do to them is its weight decay, a product; `decay` keeps
    it for all of them at once.
    """

    def __init__(self, embedding: nn.Embedding, tokens: Tensor):
        super().__init__()
        weight = embedding.weight.detach()
        padding = [] if embedding.padding_idx is None else [embedding.padding_idx]
        self.seen = torch.unique(torch.cat([tokens, tokens.new_tensor(padding)])).long()
        self.weight = nn.Parameter(weight[self.seen])
        self.whole = weight
        self.rows = torch.full((len(weight),), -1, device=weight.device)
        self.rows[self.seen] = torch.arange(len(self.seen), device=weight.device)
        self.padding_row = int(self.rows[embedding.padding_idx]) if padding else None
        self.register_buffer("decay", torch.ones((), device=weight.device))

    def forward(self, input_ids: Tensor) -> Tensor:  # (B, T) -> (B, T, D)
        rows = self.rows[input_ids]
        hidden = F.embedding(rows.clamp(min=0), self.weight, self.padding_row)
        if self.training:  # on training examples, all of them seen
            return hidden
        return torch.where((rows < 0)[..., None], F.embedding(input_ids, self.whole) * self.decay, hidden)

    def all_rows(self) -> Tensor:
        """The whole embedding as it would be had all rows been trained: (V, D)."""
        whole = self.whole * self.decay
        whole[self.seen] = self.weight.detach()
        return whole


@contextlib.contextmanager
def seen_rows(model: nn.Module, tokens: Tensor) -> Iterator[SeenRows]:
    """Within it, the model's word embedding has only the rows of these tokens as a parameter.

    Args:
        model: with `embeddings.word_embeddings`, an nn.Embedding.
        tokens: ids of all tokens of the training set.
    """
    embedding = model.embeddings.word_embeddings
    seen = SeenRows(embedding, tokens)
    model.embeddings.word_embeddings = seen
    try:
        yield seen
    finally:
        embedding.weight.data = seen.all_rows()
        model.embeddings.word_embeddings = embedding
