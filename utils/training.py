"""One training loop for all stages, the loss passed in.

result = fit(student, train, learn_from(teacher_says), recipe, lambda: evaluate(student, dev, "acc"), "acc")
"""

import contextlib
import copy
import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import get_scheduler

from utils import log, processes
from utils.batches import Batch, Examples
from utils.evaluation import autocast
from utils.metrics import Metrics
from utils.resume import StateFile
from utils.seeds import set_seed
from utils.signals import Stopped, deferred
from utils.vocabulary import seen_rows

logger = logging.getLogger("stark")
STATEFUL = ("optimizer", "scheduler", "scaler")  # of a Step


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
    diverged: str | None  # where and how, if the loss ended being a number


@dataclass
class Progress:
    """How far a training run has come."""

    losses: Tensor  # of the updates since the last evaluation, on the device, so that no update waits for it
    update: int = 0
    best: Metrics = field(default_factory=dict)
    best_update: int = 0
    best_weights: dict[str, Tensor] | None = None
    history: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    diverged: str | None = None

    def add(self, loss: Tensor) -> None:
        """Count one more update."""
        self.losses[self.update % len(self.losses)] = loss
        self.update += 1

    def note(
        self,
        model: nn.Module,
        evaluate: Callable[[], Metrics],
        metric: str,
        per_epoch: int,
        report: Callable[[dict], None] | None,
    ) -> None:
        """Evaluate, and keep the weights if they are the best so far.

        Raises:
            FloatingPointError: a loss or a logit is not a number, and there are no better weights to go back to.
        """
        try:
            loss, metrics = self._mean_loss(), evaluate()
        except FloatingPointError as error:
            if not self.best:
                raise
            self.diverged = str(error)
            logger.error("stopped, keeping the weights of update %d: %s", self.best_update, error)
            return
        self.losses.zero_()
        epoch = round(self.update / per_epoch, 3)
        self.history.append({"update": self.update, "epoch": epoch, "loss": loss, **metrics})
        if report:
            report(self.history[-1])
        if not self.best or metrics[metric] > self.best[metric]:
            self.best, self.best_update, self.best_weights = metrics, self.update, copy.deepcopy(model.state_dict())

    def is_over(self, patience: float) -> bool:
        """Whether training ends early: it has diverged, or the evaluation just made ends `patience` updates in vain."""
        evaluated = bool(self.history) and self.history[-1]["update"] == self.update
        return bool(self.diverged) or (evaluated and self.update - self.best_update >= patience)

    def _mean_loss(self) -> float:
        """Over the updates since the last evaluation, of all processes' shares."""
        before = self.history[-1]["update"] if self.history else 0
        losses = processes.all_reduce_sum(self.losses)[: self.update - before].tolist()
        for update, loss in enumerate(losses, start=before + 1):
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss of update {update} is {loss}; try a lower --learning_rate")
        return math.fsum(losses) / len(losses)

    def result(self, seconds: float) -> Result:
        """What all this came to, in so many seconds."""
        same = {name: value for name, value in vars(self).items() if name in Result._fields}
        return Result(self.best, updates=self.update, train_seconds=seconds, **same)

    def state(self) -> dict[str, Any]:
        """For a later process of this rank."""
        return {**vars(self), "losses": processes.all_reduce_sum(self.losses)}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Progress":
        """From another process's state."""
        if not processes.is_main():
            state["losses"].zero_()  # the main process has what all had
        return cls(**state)


def fit(
    model: nn.Module,
    examples: Examples,
    loss: Callable[[Tensor, Batch], Tensor],
    recipe: Recipe,
    evaluate: Callable[[], Metrics],
    selection_metric: str,
    saved: StateFile | None = None,
    report: Callable[[dict], None] | None = None,
) -> Result:
    """Train, evaluate at intervals and at the end, stop early, and leave the model with its best weights.

    Args:
        model: called as model(*batch.inputs) -> logits (B, C).
        examples: the training set, on the model's device.
        loss: (logits, batch) -> (B,).
        recipe: how.
        evaluate: the model's dev metrics.
        selection_metric: the one of them that decides which weights are best.
        saved: where the state is kept as training goes on, and taken from if it is there.
        report: takes each evaluation, an entry of the result's history.

    The order of examples and the dropout depend on recipe.seed alone, not on what ran before; training that goes on
    from a saved state ends where it would have ended without a stop.

    Raises:
        FloatingPointError: the loss was not a number before the first evaluation; later, training stops with the best
            weights so far, and the result says why.
        Stopped: a signal came; the update was finished and the state saved.
    """
    set_seed(recipe.seed + processes.rank())
    generator = torch.Generator().manual_seed(recipe.seed)
    size = recipe.batch_size * recipe.num_grad_accum_steps * processes.world_size()
    per_epoch = math.ceil(len(examples) / size)
    total, patience = recipe.num_train_epochs * per_epoch, recipe.num_patience_epochs * per_epoch or math.inf
    interval = recipe.log_interval or max(10, per_epoch // 10)
    updates = (ids for _ in range(recipe.num_train_epochs) for ids in examples.epoch(size, generator))
    rows = contextlib.nullcontext() if recipe.plain else seen_rows(model, examples.tokens)
    stops = deferred() if saved else contextlib.nullcontext(lambda: None)  # nothing to go on from, nothing to wait for
    with rows as embedding, stops as stop_signal:
        step = Step(model, loss, recipe, total, embedding and embedding.decay)
        progress = _restored(saved, model, step) or Progress(torch.zeros(min(interval, total), device=step.device))
        start, left = time.perf_counter() - progress.seconds, itertools.islice(updates, progress.update, None)
        for ids in (bar := log.progress(left, total=total, desc="training", unit="update", done=progress.update)):
            if progress.is_over(patience):
                break
            progress.add(step(examples, ids))
            progress.seconds = time.perf_counter() - start
            if evaluated := progress.update % interval == 0 or progress.update == total:
                progress.note(model, evaluate, selection_metric, per_epoch, report)
                bar.set_postfix({name: f"{progress.history[-1][name]:.4f}" for name in ("loss", selection_metric)})
            signum = stop_signal()
            if saved and (signum or saved.due(progress.update, evaluated)):
                saved.save(_state(progress, model, step), step.device)
            if signum:
                raise Stopped(signum, f"after update {progress.update} of {total}; the same command goes on from there")
        if progress.update < total and not progress.diverged:
            logger.info("no better %s for %d updates: stopped early", selection_metric, patience)
        model.load_state_dict(progress.best_weights)
    return progress.result(time.perf_counter() - start)


def _state(progress: Progress, model: nn.Module, step: "Step") -> dict[str, Any]:
    return {"progress": progress.state(), "model": model.state_dict(), "step": step.state()}


def _restored(saved: StateFile | None, model: nn.Module, step: "Step") -> Progress | None:
    """Put model, step and random states back to where they were saved."""
    state = saved and saved.load(step.device)
    if not state:
        return None
    model.load_state_dict(state["model"])
    step.restore(state["step"])
    logger.info("going on after update %d", state["progress"]["update"])
    return Progress.restored(state["progress"])


class Step:
    """One update of the weights: forward and backward passes, clipping, optimizer, learning rate."""

    def __init__(self, model: nn.Module, loss: Callable, recipe: Recipe, total: int, decay: Tensor | None = None):
        decayed = [name for name, _ in model.named_parameters() if not name.endswith(("bias", "LayerNorm.weight"))]
        parameters = dict(model.named_parameters())
        groups = [
            {"params": [parameters[name] for name in decayed], "weight_decay": recipe.weight_decay},
            {"params": [p for name, p in parameters.items() if name not in set(decayed)], "weight_decay": 0.0},
        ]
        self.device = next(model.parameters()).device
        self.model, self.loss, self.recipe, self.decay = processes.parallel(model), loss, recipe, decay
        # eps 1e-6 is what the optimizer of the paper's code had; torch's own default is 1e-8
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, eps=1e-6, fused=not recipe.plain, foreach=False
        )
        self.optimizer.register_step_post_hook(self._decay_unseen_rows)
        warmup = int(total * recipe.warmup_proportion)
        self.scheduler = get_scheduler(recipe.lr_scheduler_type, self.optimizer, warmup, total)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.dtype is torch.float16)

    def __call__(self, examples: Examples, ids: Tensor) -> Tensor:
        """Learn from these examples, in as many passes as the batch size asks; their mean loss, on the device.

        Of several processes, each learns from its share of the examples, and the loss is its share of the mean.
        """
        self.model.train()
        total, share = 0.0, ids[processes.rank() :: processes.world_size()]
        parts = share.split(self.recipe.batch_size) if len(share) else (ids[:1],)  # all take part in the averaging
        for index, part in enumerate(parts, start=1):
            batch = examples.batch(part)
            with processes.no_sync(self.model, backward_is_last=index == len(parts)):
                with autocast(self.model, self.recipe.dtype):
                    logits = self.model(*batch.inputs)
                # a share of the whole update's mean, so that parts of any size add up to one large batch
                loss = self.loss(logits.float(), batch).sum() * (len(share) > 0) / len(ids)
                # processes' gradients are averaged, not added
                self.scaler.scale(loss * processes.world_size()).backward()
            total += loss.detach()
        if self.recipe.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return total

    def _decay_unseen_rows(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """After each step of the optimizer: what its weight decay would do to embedding rows that are no parameters.

        Where float16 gradients overflow, a step is skipped: a fused optimizer is told so by `found_inf`, a tensor on
        the device that the scaler gives it for the step, and nobody waits for it; another one is not called at all.
        """
        if self.decay is not None:
            found_inf = getattr(optimizer, "found_inf", None)
            factor = 1 - optimizer.param_groups[0]["lr"] * self.recipe.weight_decay
            self.decay *= factor if found_inf is None else torch.where(found_inf > 0, 1.0, factor)

    def state(self) -> dict[str, Any]:
        """Of optimizer, schedule and loss scaling."""
        return {name: getattr(self, name).state_dict() for name in STATEFUL}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another step's state."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
