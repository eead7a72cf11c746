"""Task and distillation losses, one number per example; the caller takes the mean.

A loss is a function of (logits (B, C), batch) -> (B,); the batch brings `labels` (B,), class ids or scores, and `ids`.
What compares a student's layers with a teacher's is a function of (student features, teacher features, attention mask
(B, T)) -> (B,).
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.features import Features, similarities, teacher_layer
from models.units import CheckpointError

logger = logging.getLogger("stark")
Loss = Callable[[Tensor, Any], Tensor]


def task_loss(logits: Tensor, batch: Any) -> Tensor:
    """Cross entropy with the labels, or the squared error if there is one class: (B, C) -> (B,)."""
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.squeeze(-1), batch.labels, reduction="none")
    return F.cross_entropy(logits, batch.labels, reduction="none")


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, batch: Any, temperature: float, alpha: float
) -> Tensor:
    """alpha * T^2 CE(softmax(teacher / T), student / T) + (1 - alpha) * task loss of the student: (B, C) x 2 -> (B,).

    Regression (C = 1) replaces the first term by the squared distance. Hinton et al. 2015, eq. 1 and section 2; the
    sparse-teacher paper takes T = 2 and alpha = 1 / 2. Differentiable in both logits.
    """
    if student_logits.shape[-1] == 1:
        distance = F.mse_loss(student_logits.squeeze(-1), teacher_logits.squeeze(-1), reduction="none")
    else:
        student = F.log_softmax(student_logits / temperature, dim=-1)
        distance = -(temperature**2) * (F.softmax(teacher_logits / temperature, dim=-1) * student).sum(-1)
    return alpha * distance + (1 - alpha) * task_loss(student_logits, batch)


def learn_from(teacher_says: Callable[[Any], Tensor], temperature: float = 2.0, alpha: float = 0.5) -> Loss:
    """The loss of a student under a teacher: `teacher_says(batch)` gives the teacher's logits (B, C)."""
    return lambda logits, batch: distillation_loss(logits, teacher_says(batch), batch, temperature, alpha)


def distance_to(student_logits: Tensor, temperature: float = 2.0, alpha: float = 0.5) -> Loss:
    """The same loss seen from the teacher: the student is constant, its logits (N, C) are kept by example id."""
    return lambda logits, batch: distillation_loss(student_logits[batch.example_ids], logits, batch, temperature, alpha)


def pkd_loss(student: Features, teacher: Features, attention_mask: Tensor) -> Tensor:
    """Mean squared distance of the normalised [CLS] states of all layers but the last: -> (B,).

    PKD, Sun et al. 2019 (arXiv:1908.09355), section 3.2; the mean over layers and D, as in their code, is what their
    weights of 10 to 1000 are for.
    """
    pairs = [[F.normalize(state[:, 0].float(), dim=-1) for state in pair] for pair in _hidden_pairs(student, teacher)]
    return torch.stack([(ours - theirs).square().mean(-1) for ours, theirs in pairs[1:-1]]).mean(0)


def tinybert_loss(student: Features, teacher: Features, attention_mask: Tensor) -> Tensor:
    """Mean squared distances of hidden states and of attention scores, summed over the layers: (B, T) -> (B,).

    TinyBERT, Jiao et al. 2020 (arXiv:1909.10351), section 3.1, with the embeddings as layer 0. Means are over an
    example's own tokens. Both models are equally wide, so that no projection of the student's states is learnt.
    Attention scores are similarities() in as many parts as the teacher had heads before cutting; a layer without heads
    has none.
    """
    share = attention_mask / attention_mask.sum(1, keepdim=True)  # (B, T), of each token
    pairs = _hidden_pairs(student, teacher)
    loss = sum(((ours.float() - theirs).square().mean(-1) * share).sum(1) for ours, theirs in pairs)
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


INSIDE = {"pkd": pkd_loss, "tinybert": tinybert_loss, "minilm": minilm_loss}


def check_inside(weights: dict[str, float], student: Any, teacher: Any) -> None:
    """Raise CheckpointError if models of these configurations cannot be compared by the losses of these names."""
    if "pkd" in weights and student.num_hidden_layers == 1:
        raise CheckpointError("--pkd_weight: compares all layers but the last, the student has only 1 layer")
    if weights.keys() & {"pkd", "tinybert"} and student.hidden_size != teacher.hidden_size:
        raise CheckpointError(
            f"--{min(weights.keys() & {'pkd', 'tinybert'})}_weight: compares hidden states, the student's are of "
            f"{student.hidden_size} numbers, the teacher's of {teacher.hidden_size}"
        )


def look_inside(loss: Loss, weights: dict[str, float], student: Features, teacher: Features) -> Loss:
    """A loss that asks the teacher about each batch, plus how far the two are apart inside, by weight and name."""
    names = " and ".join(weights)
    logger.info("with %s: the teacher is asked in every step, what it says inside is too much to be kept", names)

    def both(logits: Tensor, batch: Any) -> Tensor:
        total = loss(logits, batch)  # first, so that the teacher's features are of this batch
        for name, weight in weights.items():
            total = total + weight * INSIDE[name](student, teacher, batch.attention_mask)
        return total

    return both


def _hidden_pairs(student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
    """The student's hidden states, embeddings first, each with the teacher's that it learns from: (B, T, D) x 2."""
    layers = [len(features.query) for features in (student, teacher)]
    return [(state, teacher.hidden[teacher_layer(layer, *layers)]) for layer, state in enumerate(student.hidden)]
