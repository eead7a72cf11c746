"""Losses between the layers of a student and its teacher, beside the distillation loss on logits.

    with IntermediateLoss(student, teacher, {"minilm": 1.0}, distillation_loss) as loss_fn:
        logits = student(*batch.inputs)
        loss_fn(logits, batch).mean().backward()

A new loss is a function of (student features, teacher features, attention mask (B, T)) -> (B,) and an entry of
INTERMEDIATE_LOSSES, from which the scripts and the chain make the flag --<name>_weight. One that needs models of the
same hidden size is also named in COMPARE_HIDDEN_STATES.
B examples, T tokens, D hidden size, W = heads that are left * size of a head.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoder import PrunableEncoder
from models.units import CheckpointError


class Features(NamedTuple):
    """The hidden states, queries, keys and values of a model's latest forward pass."""

    heads: int  # before cutting
    hidden: list[Tensor]  # L + 1 states (B, T, D), of the embeddings and of each layer
    query: list[Tensor | None]  # of each layer (B, T, W); None where no head is left
    key: list[Tensor | None]
    value: list[Tensor | None]


@contextlib.contextmanager
def record_features(model: PrunableEncoder) -> Iterator[Features]:
    """Record the features of each forward pass within `with`, where the last layer computes all tokens, not [CLS] only.

    Forward hooks do the recording, so the model must not be compiled.
    """
    # empty at first; the hooks fill it during the forward pass
    layers = len(model.layers)
    vectors = [[None] * layers for _ in range(3)]
    features = Features(model.config.num_attention_heads, [torch.empty(0)] * (layers + 1), *vectors)
    hooks = [_record(model.embeddings, features.hidden, 0)]
    for index, layer in enumerate(model.layers):
        hooks.append(_record(layer, features.hidden, index + 1))
        for name, (module, columns) in layer.projections().items():
            hooks.append(_record(module, getattr(features, name), index, columns))
    model.every_token = True
    try:
        yield features
    finally:
        model.every_token = False
        for hook in hooks:
            hook.remove()


def _record(module: nn.Module, outputs: list, index: int, columns: slice = slice(None)) -> Any:
    """Hook a module so that these columns of its latest output are outputs[index]; returns the hook's handle."""

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs[index] = output[..., columns]

    return module.register_forward_hook(hook)


def teacher_layer(layer: int, student_layers: int, teacher_layers: int) -> int:
    """The teacher's layer that one of the student's learns from: evenly spaced, the last from the last.

    Layers count from 1; 0 are the embeddings. As PKD-skip (arXiv:1908.09355) and TinyBERT (arXiv:1909.10351) do.
    """
    return round(layer * teacher_layers / student_layers)


def similarities(left: Tensor, right: Tensor, parts: int) -> Tensor:
    """Scaled products of all tokens' vectors with each other, part by part: (B, T, W) x 2 -> (B, parts, T, T).

    The W numbers of all heads together are split into parts of equal width, or of widths that differ by one, and the
    products are divided by the width's square root. Of an uncut model, as many parts as it has heads are its heads,
    and those of queries with keys its attention scores before the softmax. MiniLMv2 (arXiv:2012.15828) splits so, into
    more parts than heads; models with any numbers of heads can be compared like this, cut ones too.
    """
    width = left.shape[-1]
    left, right = left.float(), right.float()
    if width % parts == 0:
        left = left * (width // parts) ** -0.5
    else:
        # parts of two widths: pad the narrower ones, so that one product computes all
        columns, scale = _columns(width, parts, left.device)
        left = left.index_select(-1, columns) * scale
        right = right.index_select(-1, columns)
    left, right = (vectors.unflatten(-1, (parts, -1)).transpose(1, 2) for vectors in (left, right))  # (B, parts, T, w)
    return left @ right.transpose(2, 3)  # (B, parts, T, T)


@functools.cache
def _columns(width: int, parts: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Columns that each part takes of W, and the factor that scales each of them: both (parts * widest part,).

    Narrow parts are padded with column 0 times 0. Cached, so that they are copied to the device once.
    """
    split = torch.arange(width).tensor_split(parts)
    columns = nn.utils.rnn.pad_sequence(split, batch_first=True, padding_value=-1)  # (parts, the widest part)
    widths = torch.tensor([max(1, len(part)) for part in split])
    scale = torch.where(columns < 0, 0.0, widths[:, None] ** -0.5)
    return columns.clamp(min=0).flatten().to(device), scale.flatten().to(device)


def pkd_loss(student: Features, teacher: Features, attention_mask: Tensor) -> Tensor:
    """Mean squared distance of the normalised [CLS] states of all layers but the last: -> (B,).

    PKD, Sun et al. 2019 (arXiv:1908.09355), section 3.2; the mean over layers and D, as in their code, is what their
    weights of 10 to 1000 are for.
    """
    pairs = [[F.normalize(state[:, 0].float(), dim=-1) for state in pair] for pair in _hidden_pairs(student, teacher)]
    # without the embeddings and the last layer
    return torch.stack([(ours - theirs).square().mean(-1) for ours, theirs in pairs[1:-1]]).mean(0)


def tinybert_loss(student: Features, teacher: Features, attention_mask: Tensor) -> Tensor:
    """Mean squared distances of hidden states and of attention scores, summed over the layers: (B, T) -> (B,).

    TinyBERT, Jiao et al. 2020 (arXiv:1909.10351), section 3.1, with the embeddings as layer 0. Means are over an
    example's own tokens. Both models are equally wide, so that no projection of the student's states is learnt.
    Attention scores are similarities() in as many parts as the teacher had heads before cutting; a layer without heads
    has none.
    """
    share = attention_mask / attention_mask.sum(1, keepdim=True)  # (B, T), of each token
    # hidden states, embeddings first
    pairs = _hidden_pairs(student, teacher)
    loss = sum(((ours.float() - theirs).square().mean(-1) * share).sum(1) for ours, theirs in pairs)
    # attention scores, where both layers have heads
    for layer, query in enumerate(student.query):
        other = teacher_layer(layer + 1, len(student.query), len(teacher.query)) - 1
        if query is not None and teacher.query[other] is not None:
            ours = similarities(query, student.key[layer], teacher.heads)  # (B, H, T, T)
            theirs = similarities(teacher.query[other], teacher.key[other], teacher.heads)
            loss = loss + torch.einsum("bst,bs,bt->b", (ours - theirs).square().mean(1), share, share)
    return loss


def minilm_loss(student: Features, teacher: Features, attention_mask: Tensor) -> Tensor:
    """KL divergence of the last layers' relations, queries, keys and values each among themselves: (B, T) -> (B,).

    MiniLMv2, Wang et al. 2021 (arXiv:2012.15828), section 3. Relations are softmaxes of similarities(), in four parts
    for each head that the teacher had before cutting, as theirs (48 of 12). Means are over parts and an example's own
    tokens; the three are summed. Where one of the last layers has no heads, it is 0.
    """
    share = attention_mask / attention_mask.sum(1, keepdim=True)  # (B, T), of each token
    padding = (attention_mask == 0)[:, None, None]  # (B, 1, 1, T)
    loss = torch.zeros_like(share[:, 0])
    for name in ("query", "key", "value"):
        vectors = [getattr(features, name)[-1] for features in (student, teacher)]
        if all(vector is not None for vector in vectors):
            ours, theirs = (
                similarities(vector, vector, 4 * teacher.heads).masked_fill(padding, -1e9).log_softmax(-1)
                for vector in vectors
            )  # (B, parts, T, T)
            divergence = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)  # (B, parts, T)
            loss = loss + (divergence.mean(1) * share).sum(1)
    return loss


# name -> loss; --help says the first sentence of its docstring
INTERMEDIATE_LOSSES = {"pkd": pkd_loss, "tinybert": tinybert_loss, "minilm": minilm_loss}
COMPARE_HIDDEN_STATES = ("pkd", "tinybert")  # need student and teacher of the same hidden size


def check_widths(name: str, student: Any, teacher: Any) -> None:
    """Raise CheckpointError if models of these configurations cannot be compared by the loss of this name."""
    if name == "pkd" and student.num_hidden_layers == 1:
        raise CheckpointError("compares all layers but the last, the student has only 1 layer")
    if name in COMPARE_HIDDEN_STATES and student.hidden_size != teacher.hidden_size:
        raise CheckpointError(
            f"compares hidden states, the student's are of {student.hidden_size} numbers, the teacher's of "
            f"{teacher.hidden_size}"
        )


class IntermediateLoss(contextlib.AbstractContextManager):
    """A student's distillation loss plus weighted losses between its layers and the teacher's, (B, C) -> (B,).

    The teacher runs on each batch, since its features are too many to be cached. Both models' features are recorded
    within `with` only.
    """

    def __init__(
        self,
        student: PrunableEncoder,
        teacher: PrunableEncoder,
        weights: dict[str, float],
        distillation_loss: Callable[[Tensor, Tensor, Any], Tensor],
        dtype: torch.dtype | None = None,
    ):
        """Put the teacher into eval mode.

        Args:
            student: trained, in float32 or in whatever autocast its forward pass runs.
            teacher: not cut deeper than to one layer.
            weights: names of INTERMEDIATE_LOSSES -> factors.
            distillation_loss: (student logits, teacher logits, batch) -> (B,).
            dtype: of the teacher's autocast; None computes in float32.
        """
        self.student, self.teacher = student, teacher.eval()
        self.weights, self.distillation_loss, self.dtype = weights, distillation_loss, dtype
        self.hooks = contextlib.ExitStack()

    def __enter__(self) -> "IntermediateLoss":
        self.student_features = self.hooks.enter_context(record_features(self.student))
        self.teacher_features = self.hooks.enter_context(record_features(self.teacher))
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.close()

    def __call__(self, logits: Tensor, batch: Any) -> Tensor:
        """The loss of a batch, whose logits the student's latest forward pass has computed."""
        # the teacher's logits, and by its hooks its features
        device = logits.device.type
        with torch.no_grad(), torch.autocast(device, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            teacher_logits = self.teacher(*batch.inputs).float()
        loss = self.distillation_loss(logits, teacher_logits, batch)
        # plus each loss between layers, times its weight
        for name, weight in self.weights.items():
            intermediate = INTERMEDIATE_LOSSES[name]
            loss = loss + weight * intermediate(self.student_features, self.teacher_features, batch.attention_mask)
        return loss


def _hidden_pairs(student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
    """Pairs of hidden states, embeddings first: the student's and the teacher's that it learns from, (B, T, D) x 2."""
    layers = [len(features.query) for features in (student, teacher)]
    return [(state, teacher.hidden[teacher_layer(layer, *layers)]) for layer, state in enumerate(student.hidden)]
