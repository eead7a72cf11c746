"""One training loop for all stages, the loss passed in.

result = fit(student, train, task_loss, recipe, eval_fn=lambda: evaluate(student, dev, "acc"), selection_metric="acc")
"""

import contextlib
import copy
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from utils import log, processes
from utils.batches import Batch, Examples
from utils.metrics import Metrics
from utils.recipe import Recipe
from utils.resume import StateFile
from utils.seeds import set_seed
from utils.signals import Stopped, deferred
from utils.updater import Updater
from utils.vocabulary import seen_rows

logger = logging.getLogger("stark")


class Result(NamedTuple):
    """What a training run came to."""

    dev: Metrics  # of the weights kept
    best_update: int
    updates: int
    train_seconds: float  # with the evaluations
    history: list[dict]  # one entry per evaluation
    diverged: str | None  # where and how, if the loss ended being a number


class Schedule(NamedTuple):
    """When things happen in a training run, in updates."""

    updates_per_epoch: int
    total: int
    patience: float  # without a better metric, before training stops; infinite if it never does
    interval: int  # between evaluations

    @classmethod
    def of(cls, recipe: Recipe, rows: int) -> "Schedule":
        """The schedule of training on so many examples."""
        updates_per_epoch = math.ceil(rows / _examples_per_update(recipe))
        total = recipe.num_train_epochs * updates_per_epoch
        patience = recipe.num_patience_epochs * updates_per_epoch or math.inf
        return cls(updates_per_epoch, total, patience, recipe.log_interval or max(10, updates_per_epoch // 10))


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

    @classmethod
    def begun(cls, schedule: Schedule, device: torch.device) -> "Progress":
        """That of a run without any update."""
        return cls(torch.zeros(min(schedule.interval, schedule.total), device=device))

    def add(self, loss: Tensor, seconds: float) -> None:
        """Count one more update, so many seconds after the first began."""
        self.losses[self.update % len(self.losses)] = loss
        self.update += 1
        self.seconds = seconds

    def evaluate_and_keep_best(
        self, model: nn.Module, eval_fn: Callable[[], Metrics], metric: str, schedule: Schedule
    ) -> None:
        """Evaluate, and keep the weights if they are the best so far.

        Raises:
            FloatingPointError: a loss or a logit is not a number, and there are no better weights to go back to.
        """
        try:
            loss = self._mean_loss()
            metrics = eval_fn()
        except FloatingPointError as error:
            if not self.best:
                raise
            self.diverged = str(error)
            logger.error("stopped, keeping the weights of update %d: %s", self.best_update, error)
            return
        self.losses.zero_()
        epoch = round(self.update / schedule.updates_per_epoch, 3)
        self.history.append({"update": self.update, "epoch": epoch, "loss": loss, **metrics})
        if not self.best or metrics[metric] > self.best[metric]:
            self.best = metrics
            self.best_update = self.update
            self.best_weights = copy.deepcopy(model.state_dict())

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
    loss_fn: Callable[[Tensor, Batch], Tensor],
    recipe: Recipe,
    *,
    eval_fn: Callable[[], Metrics],
    selection_metric: str,
    train_state: StateFile | None = None,
    log_metrics: Callable[[dict], None] | None = None,
) -> Result:
    """Train, evaluate at intervals and at the end, stop early, and leave the model with its best weights.

    Args:
        model: called as model(*batch.inputs) -> logits (B, C).
        examples: the training set, on the model's device.
        loss_fn: (logits, batch) -> (B,).
        recipe: how to train.
        eval_fn: the model's dev metrics.
        selection_metric: the one of them that decides which weights are best.
        train_state: where the state is saved as training goes on, and loaded from if it is there.
        log_metrics: takes each evaluation, an entry of the result's history.

    The order of examples and the dropout depend on recipe.seed alone, not on what ran before; training that goes on
    from a saved state ends where it would have ended without a stop.

    Raises:
        FloatingPointError: the loss was not a number before the first evaluation; later, the result says so.
        Stopped: a signal came; the update was finished and the state saved.
    """
    set_seed(recipe.seed + processes.rank())
    schedule = Schedule.of(recipe, len(examples))
    total = schedule.total
    embedding_rows = seen_rows(model, examples.tokens) if recipe.exact_shortcuts else contextlib.nullcontext()
    stops = deferred() if train_state else contextlib.nullcontext(lambda: None)  # nothing to save, nothing to wait for
    with embedding_rows as embedding, stops as stop_signal:
        updater = Updater(model, loss_fn, recipe, total, embedding.decay if embedding else None)
        progress = _restored(train_state, model, updater) or Progress.begun(schedule, updater.device)
        start = time.perf_counter() - progress.seconds
        left = itertools.islice(_batches(examples, recipe), progress.update, None)
        bar = log.progress(left, total=total, desc="training", unit="update", done=progress.update)
        for ids in bar:
            if progress.is_over(schedule.patience):
                break
            progress.add(updater.update(examples, ids), time.perf_counter() - start)
            evaluated = progress.update % schedule.interval == 0 or progress.update == total
            if evaluated:
                progress.evaluate_and_keep_best(model, eval_fn, selection_metric, schedule)
                bar.set_postfix({name: f"{progress.history[-1][name]:.4f}" for name in ("loss", selection_metric)})
                if log_metrics and not progress.diverged:
                    log_metrics(progress.history[-1])
            signum = stop_signal()
            if train_state and (signum or train_state.due(progress.update, evaluated)):
                train_state.save(_state(progress, model, updater), updater.device)
            if signum:
                raise Stopped(signum, f"after update {progress.update} of {total}; the same command goes on from there")
        if progress.update < total and not progress.diverged:
            logger.info("no better %s for %d updates: stopped early", selection_metric, schedule.patience)
        model.load_state_dict(progress.best_weights)
    return progress.result(time.perf_counter() - start)


def _examples_per_update(recipe: Recipe) -> int:
    return recipe.batch_size * recipe.num_grad_accum_steps * processes.world_size()


def _batches(examples: Examples, recipe: Recipe) -> Iterator[Tensor]:
    """The ids of the examples of each update, epoch after epoch; the seed alone decides their order."""
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.num_train_epochs):
        yield from examples.epoch(_examples_per_update(recipe), generator)


def _state(progress: Progress, model: nn.Module, updater: Updater) -> dict[str, Any]:
    return {"progress": progress.state(), "model": model.state_dict(), "step": updater.state()}


def _restored(train_state: StateFile | None, model: nn.Module, updater: Updater) -> Progress | None:
    """Put model, updater and random states back to where they were saved."""
    state = train_state and train_state.load(updater.device)
    if not state:
        return None
    model.load_state_dict(state["model"])
    updater.restore(state["step"])
    logger.info("going on after update %d", state["progress"]["update"])
    return Progress.restored(state["progress"])
