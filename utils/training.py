"""One training loop for all stages, the loss passed in; evaluation and prediction.

result = fit(student, train, learn_from(teacher_says), recipe, lambda: evaluate(student, dev, "acc"), "acc")
"""

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import get_scheduler

from utils.batches import Batch, Examples
from utils.metrics import Metrics, compute_metrics
from utils.run import set_seed
from utils.vocabulary import seen_rows

logger = logging.getLogger("stark")
DELAY = 3  # seconds before a loop shows that it goes on


class Recipe(NamedTuple):
    """How to train; the defaults are the paper's for RTE."""

    batch_size: int = 16  # examples per forward pass
    num_grad_accum_steps: int = 1  # forward passes per update
    learning_rate: float = 3e-5
    weight_decay: float = 1e-2
    num_train_epochs: int = 10
    num_patience_epochs: int = 5  # epochs without a better metric before stopping; 0 never stops early
    warmup_proportion: float = 0.1  # of all updates
    max_grad_norm: float = 5.0  # 0 does not clip
    lr_scheduler_type: str = "linear"
    log_interval: int | None = None  # updates between evaluations; None is a tenth of an epoch, at least 10
    seed: int = 776
    dtype: torch.dtype | None = None  # of autocast; None computes in float32
    plain: bool = False  # step all embedding rows, seen or not, parameter by parameter; changes no result


class Result(NamedTuple):
    """What a training run came to."""

    dev: Metrics  # of the weights kept
    best_update: int
    updates: int
    train_seconds: float  # with the evaluations
    history: list[dict]  # one entry per evaluation


def autocast(model: nn.Module, dtype: torch.dtype | None) -> torch.autocast:
    """Mixed precision on the model's device; None computes in float32."""
    return torch.autocast(_device(model).type, dtype or torch.bfloat16, enabled=dtype is not None)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def predict(model: nn.Module, examples: Examples, batch_size: int, dtype: torch.dtype | None = None) -> Tensor:
    """Logits (N, C) of all examples in file order, in eval mode; they can be used as constants in a loss."""
    model.eval()
    logits = None
    with torch.inference_mode(), autocast(model, dtype):
        batches = tqdm(
            examples.by_length(batch_size),
            total=-(-len(examples) // batch_size),
            leave=False,
            delay=DELAY,
            desc="predicting",
        )
        for batch in batches:
            output = model(*batch.inputs).float()
            if logits is None:
                with torch.inference_mode(False):
                    logits = torch.empty(len(examples), output.shape[-1], device=output.device)
            logits[batch.ids] = output
    return logits


def evaluate(
    model: nn.Module, examples: Examples, metric: str, batch_size: int, dtype: torch.dtype | None = None
) -> Metrics:
    """A task's numbers on these examples; `metric` is a key of utils.metrics.METRICS."""
    return metrics_of(predict(model, examples, batch_size, dtype), examples, metric)


def metrics_of(logits: Tensor, examples: Examples, metric: str) -> Metrics:
    """A task's numbers from logits (N, C) in file order."""
    return compute_metrics(metric, logits.cpu().numpy(), examples.labels.cpu().numpy())


def frozen(
    teacher: nn.Module, examples: Examples, batch_size: int, cached: bool = True, dtype: torch.dtype | None = None
) -> Callable[[Batch], Tensor]:
    """What a teacher in eval mode says of a batch: logits (B, C), constant.

    It says the same every epoch, so its logits are computed once, kept by example id, and the teacher may be dropped;
    with cached=False it is asked each time, as in the paper's code.
    """
    if cached:
        logits = predict(teacher, examples, batch_size, dtype)
        return lambda batch: logits[batch.ids]
    teacher.eval()

    def ask(batch: Batch) -> Tensor:
        with torch.no_grad(), autocast(teacher, dtype):
            return teacher(*batch.inputs).float()

    return ask


def fit(
    model: nn.Module,
    examples: Examples,
    loss: Callable[[Tensor, Batch], Tensor],
    recipe: Recipe,
    evaluate: Callable[[], Metrics],
    selection_metric: str,
) -> Result:
    """Train, evaluate at intervals and at the end, stop early, and leave the model with its best weights.

    Args:
        model: called as model(*batch.inputs) -> logits (B, C).
        examples: the training set, on the model's device.
        loss: (logits, batch) -> (B,).
        recipe: how.
        evaluate: the model's dev metrics.
        selection_metric: the one of them that decides which weights are best.

    The order of examples and the dropout depend on recipe.seed alone, not on what ran before.
    """
    set_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    size = recipe.batch_size * recipe.num_grad_accum_steps
    per_epoch = math.ceil(len(examples) / size)
    total, patience = recipe.num_train_epochs * per_epoch, recipe.num_patience_epochs * per_epoch or math.inf
    interval = recipe.log_interval or max(10, per_epoch // 10)
    best, best_update, best_weights, history, start = {}, 0, None, [], time.perf_counter()
    losses = torch.zeros((), device=_device(model))  # stays on the device, so that no update waits for it
    updates = (ids for _ in range(recipe.num_train_epochs) for ids in examples.epoch(size, generator))
    with contextlib.nullcontext() if recipe.plain else seen_rows(model, examples.tokens) as embedding:
        step = Step(model, loss, recipe, total, embedding and embedding.decay)
        for update, ids in enumerate(bar := tqdm(updates, total=total, unit="update", leave=False), start=1):
            losses += step(examples, ids)
            if update % interval == 0 or update == total:
                metrics, mean = evaluate(), losses.item() / (update - (history[-1]["update"] if history else 0))
                losses.zero_()
                history.append({"update": update, "epoch": round(update / per_epoch, 3), "loss": mean, **metrics})
                bar.set_postfix(loss=f"{mean:.4f}", **{selection_metric: f"{metrics[selection_metric]:.4f}"})
                if not best or metrics[selection_metric] > best[selection_metric]:
                    best, best_update, best_weights = metrics, update, copy.deepcopy(model.state_dict())
                elif update - best_update >= patience:
                    logger.info("no better %s for %d updates: stopped early", selection_metric, patience)
                    break
        model.load_state_dict(best_weights)
    return Result(best, best_update, update, time.perf_counter() - start, history)


class Step:
    """One update of the weights: forward and backward passes, clipping, optimizer, learning rate."""

    def __init__(self, model: nn.Module, loss: Callable, recipe: Recipe, total: int, decay: Tensor | None = None):
        decayed = [name for name, _ in model.named_parameters() if not name.endswith(("bias", "LayerNorm.weight"))]
        parameters = dict(model.named_parameters())
        groups = [
            {"params": [parameters[name] for name in decayed], "weight_decay": recipe.weight_decay},
            {"params": [p for name, p in parameters.items() if name not in set(decayed)], "weight_decay": 0.0},
        ]
        self.model, self.loss, self.recipe, self.decay = model, loss, recipe, decay
        # eps 1e-6 is what the optimizer of the paper's code had; torch's own default is 1e-8
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, eps=1e-6, fused=not recipe.plain, foreach=False
        )
        warmup = int(total * recipe.warmup_proportion)
        self.scheduler = get_scheduler(recipe.lr_scheduler_type, self.optimizer, warmup, total)
        self.scaler = torch.amp.GradScaler(_device(model).type, enabled=recipe.dtype is torch.float16)

    def __call__(self, examples: Examples, ids: Tensor) -> Tensor:
        """Learn from these examples, in as many passes as the batch size asks; their mean loss, on the device."""
        self.model.train()
        total = 0.0
        for part in ids.split(self.recipe.batch_size):
            batch = examples.batch(part)
            with autocast(self.model, self.recipe.dtype):
                logits = self.model(*batch.inputs)
            # a share of the whole update's mean, so that parts of any size add up to one large batch
            loss = self.loss(logits.float(), batch).sum() / len(ids)
            self.scaler.scale(loss).backward()
            total += loss.detach()
        if self.recipe.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        if self.decay is not None:
            self.decay *= 1 - self.optimizer.param_groups[0]["lr"] * self.recipe.weight_decay
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return total
