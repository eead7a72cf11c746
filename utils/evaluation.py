"""Logits, metrics and cached teacher logits.

metrics = evaluate(student, dev, "acc", batch_size=32)
teacher_logits = teacher_logits_fn(teacher, train, batch_size=32)  # batch -> (B, C)
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from utils import processes
from utils.batches import Batch, Examples
from utils.log import progress
from utils.metrics import Metrics, compute_metrics

DELAY = 3  # seconds before a loop shows that it goes on


def autocast(model: nn.Module, dtype: torch.dtype | None) -> torch.autocast:
    """Mixed precision on the model's device; None computes in float32."""
    return torch.autocast(_device(model).type, dtype or torch.bfloat16, enabled=dtype is not None)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def predict(model: nn.Module, examples: Examples, batch_size: int, dtype: torch.dtype | None = None) -> Tensor:
    """Logits (N, C) of all examples in file order, in eval mode; they can be used as constants in a loss.

    They are there when this returns, not only asked for: the check waits for the device, once.

    Raises:
        FloatingPointError: a logit is not finite, so that nothing made of it could be trusted.
    """
    model.eval()
    logits = torch.zeros(len(examples), model.config.num_labels, device=_device(model))
    # several processes take turns at the batches of one, so that the sum of their logits is what one alone would have
    batches = examples.eval_batches(batch_size, processes.rank(), processes.world_size())
    turns = len(range(processes.rank(), math.ceil(len(examples) / batch_size), processes.world_size()))
    with torch.inference_mode(), autocast(model, dtype):
        for batch in progress(batches, total=turns, desc="predicting", unit="batch", delay=DELAY):
            logits[batch.example_ids] = model(*batch.inputs).float()
    logits = processes.all_reduce_sum(logits)
    _check_finite(logits, examples)
    return logits


def _check_finite(logits: Tensor, examples: Examples) -> None:
    bad = logits.isfinite().all(1).cpu().logical_not().nonzero().flatten()
    if len(bad):
        place = bad[0] if examples.places is None else examples.places[bad[0]]
        raise FloatingPointError(
            f"logits that are not numbers, first those of example {int(place) + 1} of the file "
            f"({logits[bad[0]].tolist()}): the model has diverged or its weights are damaged"
        )


def evaluate(
    model: nn.Module, examples: Examples, metric: str, batch_size: int, dtype: torch.dtype | None = None
) -> Metrics:
    """A task's numbers on these examples; `metric` is a key of utils.metrics.METRICS."""
    return metrics_of(predict(model, examples, batch_size, dtype), examples, metric)


def metrics_of(logits: Tensor, examples: Examples, metric: str) -> Metrics:
    """A task's numbers from logits (N, C) in file order."""
    return compute_metrics(metric, logits.cpu().numpy(), examples.labels.cpu().numpy())


def teacher_logits_fn(
    teacher: nn.Module, examples: Examples, batch_size: int, dtype: torch.dtype | None = None, cached: bool = True
) -> Callable[[Batch], Tensor]:
    """A function of batches that returns the teacher's logits (B, C), in eval mode and constant.

    They are the same in every epoch: computed once for all examples and kept by example id, so that the teacher may be
    dropped; with cached=False in each call, as in the paper's code.
    """
    if cached:
        logits = predict(teacher, examples, batch_size, dtype)
        return lambda batch: logits[batch.example_ids]
    teacher.eval()

    def compute(batch: Batch) -> Tensor:
        with torch.no_grad(), autocast(teacher, dtype):
            return teacher(*batch.inputs).float()

    return compute
