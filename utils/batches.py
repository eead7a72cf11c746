"""Tokenise once into one flat array, then make padded batches from lists of indices.

examples = tokenise(read_split("rte", "datasets", "train"), load_tokenizer(path), max_length=128)
for ids in examples.epoch(16, generator):
    batch = examples.batch(ids)
"""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import tokenizers
import torch
from torch import Tensor

from utils.readers import Split
from utils.special_tokens import Template
from utils.tokenizer import Tokenizer

BLOCK = 50  # batches; epochs are shuffled, then sorted by length within blocks of so many
NO_LABEL = -100  # class id of a row without a label, which torch's cross entropy ignores; a score is NaN
CHUNK = 20_000  # rows given to the tokenizer at once, so that its objects never fill the memory


class Batch(NamedTuple):
    """B examples padded to T tokens."""

    input_ids: Tensor  # (B, T)
    token_type_ids: Tensor  # (B, T), 0, or 1 from the second text on if the tokenizer's template has it so
    attention_mask: Tensor  # (B, T), true on tokens
    labels: Tensor  # (B,), class ids or scores
    example_ids: Tensor  # (B,), places in the file from 0
    example_ids_on_cpu: (
        Tensor  # (B,), the same on the CPU, so that nobody waits for a device to hear what was planned here
    )
    update: int = 0  # in training, how many updates of the weights were made before this one

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of the model's forward, in its order."""
        return self[:3]


@dataclass(frozen=True)
class Examples:
    """N tokenised examples in file order."""

    tokens: Tensor  # (all tokens,), example after example
    offsets: Tensor  # (N,), where each begins
    lengths: Tensor  # (N,), on the CPU, where batches are planned
    segment_b_start: Tensor  # (N,), place of the first token of type 1 within the example
    labels: Tensor  # (N,), long class ids or float scores; see lacks_label
    pad_id: int
    pad_to: int | None = None  # tokens; None pads to the longest of the batch
    pad_multiple: int = 1  # tokens; widths are rounded up to it
    group_by_length: bool = True
    places: Tensor | None = None  # (N,), on the CPU, in their file from 0; None if they are 0 to N - 1

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def example_ids(self) -> Tensor:
        """Places in the file, (N,): with `labels`, all that a loss asks of a batch."""
        return torch.arange(len(self), device=self.labels.device)

    def to(self, device: torch.device | str) -> "Examples":
        """These examples with their arrays on a device, where batches are then made."""
        moved = {name: getattr(self, name).to(device) for name in ("tokens", "offsets", "segment_b_start", "labels")}
        return replace(self, **moved)

    def rows(self, ids: Tensor) -> "Examples":
        """Only the examples with these ids (n,), which count from 0 anew."""
        there = ids.to(self.offsets.device)
        picked = {name: getattr(self, name)[there] for name in ("offsets", "segment_b_start", "labels")}
        places = ids if self.places is None else self.places[ids]
        return replace(self, lengths=self.lengths[ids], places=places, **picked)

    def halves(self) -> tuple["Examples", "Examples"]:
        """Two halves in file order, alike in their labels, and always the same."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        order = order[self.labels.cpu()[order].argsort(stable=True)]  # neighbours have like labels or scores
        first, second = (self.rows(order[start::2].sort().values) for start in (0, 1))
        return first, second

    def batch(self, ids: Tensor) -> Batch:
        """The examples with these ids (B,), in this order."""
        width = self.pad_to or -(-int(self.lengths[ids].max()) // self.pad_multiple) * self.pad_multiple
        example_ids_on_cpu = ids
        lengths, ids = (tensor.to(self.tokens.device, non_blocking=True) for tensor in (self.lengths[ids], ids))
        places = torch.arange(width, device=self.tokens.device)  # (T,)
        mask = places < lengths[:, None]  # (B, T)
        index = (self.offsets[ids, None] + places).clamp_(max=len(self.tokens) - 1)
        input_ids = self.tokens[index].masked_fill_(~mask, self.pad_id)
        token_type_ids = ((places >= self.segment_b_start[ids, None]) & mask).to(input_ids.dtype)
        return Batch(input_ids, token_type_ids, mask, self.labels[ids], ids, example_ids_on_cpu)

    def epoch(self, batch_size: int, generator: torch.Generator, rows: Tensor | None = None) -> list[Tensor]:
        """Every example once, or those with the ids `rows` (n,), in random batches of similar lengths.

        Shuffled in blocks of 50 batches, sorted by length within a block, then the batches shuffled. Without
        grouping by length: just shuffled. The last batch may be short.
        """
        order = torch.randperm(len(self) if rows is None else len(rows), generator=generator)
        if rows is not None:
            order = rows[order]
        if not self.group_by_length:
            return list(order.split(batch_size))
        batches = [
            batch
            for block in order.split(BLOCK * batch_size)
            for batch in block[self.lengths[block].argsort(stable=True)].split(batch_size)
        ]
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]

    def eval_batches(
        self, batch_size: int, start: int = 0, step: int = 1, window: int | None = None
    ) -> Iterator[Batch]:
        """Every example once, the longest first; in file order without grouping by length.

        Of these batches, every `step`-th from number `start` on. With a window, so many examples in file order at a
        time: all of them have come before the next window begins.
        """
        batches = []
        for ids in torch.arange(len(self)).split(window or len(self)):
            if self.group_by_length:
                ids = ids[self.lengths[ids].argsort(descending=True, stable=True)]
            batches += ids.split(batch_size)
        for ids in batches[start::step]:
            yield self.batch(ids)


def lacks_label(labels: Tensor) -> Tensor:
    """Which of these class ids or scores (N,) are those of rows without a label: -> (N,), bool."""
    return labels.isnan() | (labels == NO_LABEL)


def concatenate(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts, one part after the other; ids count from 0 anew, and padding is the first part's."""
    names = ("tokens", "lengths", "segment_b_start", "labels")
    arrays = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    starts = itertools.accumulate((len(part.tokens) for part in parts), initial=0)
    offsets = torch.cat([part.offsets + start for part, start in zip(parts, starts, strict=False)])
    places = [torch.arange(len(part)) if part.places is None else part.places for part in parts]
    return replace(parts[0], offsets=offsets, places=torch.cat(places), **arrays)


def tokenise(split: Split, tokenizer: Tokenizer, max_length: int, regression: bool = False) -> Examples:
    """Texts and pairs in the tokenizer's template, cut to `max_length` tokens as the paper's code does.

    Args:
        split: N sentences or pairs; an empty second sentence makes a single one.
        tokenizer: a checkpoint's own.
        max_length: tokens, with the special ones, of which a pair has up to 4.
        regression: labels are scores, not class ids.
    """
    second = split.second or [""] * len(split.first)
    backend = tokenizer.backend_tokenizer
    if backend.truncation or backend.padding:
        backend = copy.deepcopy(backend)  # the tokenizer itself is saved with checkpoints as it came
        backend.no_truncation()
        backend.no_padding()
    parts = [
        _tokenise_rows(split.first[start:stop], second[start:stop], tokenizer.template, backend, max_length)
        for start, stop in ((start, start + CHUNK) for start in range(0, len(split.first), CHUNK))
    ]
    tokens, lengths, seconds = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))
    labels = torch.tensor(split.labels, dtype=torch.float32 if regression else torch.long)
    return Examples(tokens, lengths.cumsum(0) - lengths, lengths, seconds, labels, tokenizer.pad_token_id)


def _tokenise_rows(
    first: list[str], second: list[str], template: Template, backend: tokenizers.Tokenizer, max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat tokens, lengths (n,) and the place of each example's first token of type 1 (n,)."""
    (first_tokens, first_lengths), (second_tokens, second_lengths) = (
        _flat_tokens(texts, backend) for texts in (first, second)
    )
    paired = np.array([bool(text) for text in second])
    separators = template.separators * paired
    keep_first, keep_second = _truncate(first_lengths, second_lengths, max_length - 2 - separators)
    lengths = keep_first + 2 + np.where(paired, keep_second + separators, 0)
    offsets = np.cumsum(lengths) - lengths
    second_start = keep_first + 1 + separators
    tokens = np.full(lengths.sum(), template.sep_id, dtype=np.int32)
    tokens[offsets] = template.cls_id
    _copy(first_tokens, first_lengths, keep_first, tokens, offsets + 1)
    _copy(second_tokens, second_lengths, keep_second, tokens, offsets + second_start)
    return tokens, lengths, np.where(paired & bool(template.second_type), second_start, lengths)


def _flat_tokens(texts: list[str], backend: tokenizers.Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of all texts one after the other, without special tokens, and each text's number of them."""
    rows = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    return np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=lengths.sum()), lengths


def _truncate(first: np.ndarray, second: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of each are kept: the longer one gives way, of equals the second, token by token."""
    keep_first = np.minimum(first, np.maximum((room + 1) // 2, room - second))
    return keep_first, np.minimum(second, room - keep_first)


def _copy(flat: np.ndarray, lengths: np.ndarray, kept: np.ndarray, target: np.ndarray, at: np.ndarray) -> None:
    """Copy the first `kept` of each text's tokens to its place in the target."""
    within = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    target[np.repeat(at, kept) + within] = flat[np.repeat(np.cumsum(lengths) - lengths, kept) + within]
