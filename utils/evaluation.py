"""Logits, metrics and cached teacher logits.

metrics = evaluate(student, dev, "acc", batch_size=32)
teacher_logits = teacher_logits_fn(teacher, train, batch_size=32)  # batch -> (B, C)
in_turn = scheduled_logits_fn([sparse_logits, teacher_logits], total=1560)  # the first 780 updates, then the others
"""

import logging
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from utils import processes
from utils.batches import Batch, Examples, lacks_label
from utils.log import progress
from utils.metrics import Metrics, compute_metrics

logger = logging.getLogger("stark")
DELAY = 3  # seconds before a progress bar appears


def autocast(model: nn.Module, dtype: torch.dtype | None) -> torch.autocast:
    """A context of mixed precision on the model's device; with dtype None it computes in float32."""
    return torch.autocast(_device(model).type, dtype or torch.bfloat16, enabled=dtype is not None)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def predict(model: nn.Module, examples: Examples, batch_size: int, dtype: torch.dtype | None = None) -> Tensor:
    """Logits (N, C) of all examples in file order, computed in eval mode without gradients.

    Synchronises with the device once, at the end, to check that they are finite.

    Raises:
        FloatingPointError: a logit is not finite, which makes every metric of them meaningless.
    """
    model.eval()
    logits = torch.zeros(len(examples), model.config.num_labels, device=_device(model))
    # the processes take turns at the batches; each leaves zeros in the rows of the others, so that the sum is complete
    batches = examples.eval_batches(batch_size, processes.rank(), processes.world_size())
    count = len(range(processes.rank(), math.ceil(len(examples) / batch_size), processes.world_size()))
    with torch.inference_mode(), autocast(model, dtype):
        for batch in progress(batches, total=count, desc="predicting", unit="batch", delay=DELAY):
            logits[batch.example_ids] = model(*batch.inputs).float()
    logits = processes.all_reduce_sum(logits)
    check_finite(logits, examples)
    return logits


def check_finite(logits: Tensor, examples: Examples) -> None:
    """Raise FloatingPointError, with the first example concerned, unless all logits (N, C) are finite."""
    infinite = logits.isfinite().all(1).cpu().logical_not().nonzero().flatten()
    if len(infinite):
        first = infinite[0]
        row = first if examples.places is None else examples.places[first]  # in the file, from 0
        file = "its file without labels" if lacks_label(examples.labels[first]) else "the file"
        raise FloatingPointError(
            f"logits that are not numbers, first those of example {int(row) + 1} of {file} "
            f"({logits[first].tolist()}): the model has diverged or its weights are damaged"
        )


def evaluate(
    model: nn.Module,
    examples: Examples,
    metric: str,
    batch_size: int,
    dtype: torch.dtype | None = None,
    is_teacher: bool = False,
) -> Metrics:
    """The model's metrics on these examples; `metric` is a key of utils.metrics.METRICS.

    A teacher of another scale than the labels is logged.

    Raises:
        FloatingPointError: a logit is not finite.
    """
    logits = predict(model, examples, batch_size, dtype)
    if is_teacher:
        _warn_of_scale(model, logits, examples)
    return metrics_of(logits, examples, metric)


def metrics_of(logits: Tensor, examples: Examples, metric: str) -> Metrics:
    """Metrics of logits (N, C) in file order against the examples' labels."""
    return compute_metrics(metric, logits.cpu().numpy(), examples.labels.cpu().numpy())


def _warn_of_scale(model: nn.Module, logits: Tensor, examples: Examples) -> None:
    """Log it if an uncut teacher's scores are, on average, over half a standard deviation from the labels.

    Correlations do not show it, but a teacher that was trained elsewhere on another scale, such as from 0 to 1, gives
    losses that mean nothing. Labels of classes are left alone.
    """
    if model.config.num_labels > 1 or int(getattr(model.config, "sparsity", 0)):
        return
    labels = examples.labels.double()
    means = logits.double().mean().item(), labels.mean().item()
    spread = labels.std(correction=0).item()
    if abs(means[0] - means[1]) > spread / 2:
        text = "%s: scores of %.2f on average where labels are %.2f ± %.2f: is it of another scale?"
        logger.warning(text, model.name_or_path, *means, spread)


def teacher_logits_fn(
    teacher: nn.Module, examples: Examples, batch_size: int, dtype: torch.dtype | None = None, cached: bool = True
) -> Callable[[Batch], Tensor]:
    """A function from a batch to the teacher's logits (B, C), in eval mode and without gradients.

    The logits do not change between epochs: they are computed once for all examples and looked up by example id, so
    that the teacher's memory can be freed. With cached=False the teacher runs in each call, as in the paper's code.
    """
    if cached:
        logits = predict(teacher, examples, batch_size, dtype)
        return lambda batch: logits[batch.example_ids]
    teacher.eval()

    def compute(batch: Batch) -> Tensor:
        with torch.no_grad(), autocast(teacher, dtype):
            return teacher(*batch.inputs).float()

    return compute


def scheduled_logits_fn(logits_fns: Sequence[Callable[[Batch], Tensor]], total: int) -> Callable[[Batch], Tensor]:
    """A function from a batch to the logits (B, C) of the teacher whose turn it is at the batch's update.

    Of n teachers, number floor(u * n / total) is the one of update u of `total`, both from 0: equal shares of the
    updates, as far as n divides them. A teacher that gets denser while the student trains is the idea of Masters, Lee
    et al. 2025 (arXiv:2512.22238), which unmasks weights of one teacher step by step.

    Args:
        logits_fns: of each teacher, as teacher_logits_fn returns it.
        total: number of updates.
    """
    return lambda batch: logits_fns[batch.update * len(logits_fns) // total](batch)
