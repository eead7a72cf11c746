"""Train only the rows of the word embedding that occur in the training set: exact, and most of AdamW's work is saved.

with seen_rows(model, examples.tokens) as embedding:
    ...  # train; after each update: embedding.decay *= 1 - lr * weight_decay
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SeenRows(nn.Module):
    """A word embedding (V, D) of which only the rows that occur in training, (S, D), are a parameter.

    The other rows never get a gradient: all that AdamW does to them is weight decay, the same factor for each, whose
    product over all updates is the scalar `decay`.
    """

    def __init__(self, embedding: nn.Embedding, tokens: Tensor):
        super().__init__()
        weight = embedding.weight.detach()
        padding = [] if embedding.padding_idx is None else [embedding.padding_idx]
        self.seen = torch.unique(torch.cat([tokens, tokens.new_tensor(padding)])).long()  # (S,)
        self.weight = nn.Parameter(weight[self.seen])  # (S, D)
        self.initial = weight  # (V, D)
        self.rows = torch.full((len(weight),), -1, device=weight.device)  # (V,), row in self.weight, -1 if unseen
        self.rows[self.seen] = torch.arange(len(self.seen), device=weight.device)
        self.padding_row = int(self.rows[embedding.padding_idx]) if padding else None
        self.register_buffer("decay", torch.ones((), device=weight.device))

    def forward(self, input_ids: Tensor) -> Tensor:  # (B, T) -> (B, T, D)
        rows = self.rows[input_ids]
        hidden = F.embedding(rows.clamp(min=0), self.weight, self.padding_row)
        if self.training:  # every token is one of the training set
            return hidden
        return torch.where((rows < 0)[..., None], F.embedding(input_ids, self.initial) * self.decay, hidden)

    def all_rows(self) -> Tensor:
        """The embedding (V, D) that training all rows would have given."""
        weight = self.initial * self.decay
        weight[self.seen] = self.weight.detach()
        return weight


@contextlib.contextmanager
def seen_rows(model: nn.Module, tokens: Tensor) -> Iterator[SeenRows]:
    """A context in which only the rows of these tokens are a parameter of the model's word embedding.

    Args:
        model: has embeddings.word_embeddings, an nn.Embedding.
        tokens: ids of all tokens of the training set (n,).
    """
    embedding = model.embeddings.word_embeddings
    seen = SeenRows(embedding, tokens)
    model.embeddings.word_embeddings = seen
    try:
        yield seen
    finally:
        embedding.weight.data = seen.all_rows()
        model.embeddings.word_embeddings = embedding
