"""Task and distillation losses, one number per example; the caller takes the mean.

A loss is a function of (logits (B, C), batch) -> (B,); the batch brings `labels` (B,), class ids or scores, and
`example_ids`. A row without a label, whose class id is -100 or whose score is NaN, has the teacher's share alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Any], Tensor]
NO_LABEL = -100  # which torch's cross entropy ignores


def task_loss(logits: Tensor, batch: Any) -> Tensor:
    """Cross entropy with the labels, or the squared error if there is one class: (B, C) -> (B,).

    Rows without a label have a loss and a gradient of 0.
    """
    if logits.shape[-1] == 1:
        scores = logits.squeeze(-1)
        labels = torch.where(batch.labels.isnan(), scores.detach(), batch.labels)  # 0 * NaN would be NaN
        return F.mse_loss(scores, labels, reduction="none")
    return F.cross_entropy(logits, batch.labels, reduction="none", ignore_index=NO_LABEL)


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, batch: Any, temperature: float, alpha: float
) -> Tensor:
    """alpha * T^2 CE(softmax(teacher / T), student / T) + (1 - alpha) * task loss of the student: (B, C) x 2 -> (B,).

    Regression (C = 1) replaces the first term by the squared distance. Hinton et al. 2015, eq. 1 and section 2; the
    sparse-teacher paper takes T = 2 and alpha = 1 / 2. Differentiable in both logits. The loss of a row without a label
    is alpha * the first term.
    """
    if student_logits.shape[-1] == 1:
        distance = F.mse_loss(student_logits.squeeze(-1), teacher_logits.squeeze(-1), reduction="none")
    else:
        student = F.log_softmax(student_logits / temperature, dim=-1)
        distance = -(temperature**2) * (F.softmax(teacher_logits / temperature, dim=-1) * student).sum(-1)
    return alpha * distance + (1 - alpha) * task_loss(student_logits, batch)


def student_loss(teacher_logits_fn: Callable[[Any], Tensor], temperature: float = 2.0, alpha: float = 0.5) -> Loss:
    """The distillation loss as a function of the student's logits; `teacher_logits_fn`: batch -> logits (B, C)."""
    return lambda logits, batch: distillation_loss(logits, teacher_logits_fn(batch), batch, temperature, alpha)


def teacher_loss(student_logits: Tensor, temperature: float = 2.0, alpha: float = 0.5) -> Loss:
    """The same loss as a function of the teacher's logits; the student's (N, C), by example id, are constant."""
    return lambda logits, batch: distillation_loss(student_logits[batch.example_ids], logits, batch, temperature, alpha)


def weigh_unlabelled(loss_fn: Loss, weight: float) -> Loss:
    """The loss, with that of rows without a label times `weight`."""
    if weight == 1:
        return loss_fn

    def weighted(logits: Tensor, batch: Any) -> Tensor:
        lacks_label = batch.labels.isnan() | (batch.labels == NO_LABEL)
        return loss_fn(logits, batch) * torch.where(lacks_label, weight, 1.0)

    return weighted
