"""The training loop of all stages; the loss is an argument.

The order of examples and the dropout depend on the recipe's seed alone, not on what ran before in the process; training
that is resumed from a saved state ends with the same weights as without the stop.

result = fit(student, train, task_loss, recipe, eval_fn=lambda: evaluate(student, dev, "acc"), selection_metric="acc")
"""

import contextlib
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
from utils.unlabelled import epoch_rows
from utils.updater import Updater
from utils.vocabulary import seen_rows

logger = logging.getLogger("stark")


class Result(NamedTuple):
    """Result of a training run."""

    dev: Metrics  # of the best weights
    best_update: int
    updates: int
    train_seconds: float  # evaluations included
    history: list[dict]  # update, epoch, mean loss and dev metrics of each evaluation
    diverged: str | None  # the reason, if training ended at a loss or a logit that is not finite


class Schedule(NamedTuple):
    """Length of a training run and of its parts, in updates."""

    updates_per_epoch: int
    total: int
    patience: float  # updates without a better metric before training stops; infinite without early stopping
    interval: int  # updates between evaluations

    @classmethod
    def of(cls, recipe: Recipe, examples: Examples) -> "Schedule":
        """The schedule of training on these examples."""
        rows = len(_epoch_rows(examples.labels.cpu(), recipe, epoch=0))
        updates_per_epoch = math.ceil(rows / _examples_per_update(recipe))
        return cls(
            updates_per_epoch=updates_per_epoch,
            total=recipe.num_train_epochs * updates_per_epoch,
            patience=recipe.num_patience_epochs * updates_per_epoch or math.inf,
            interval=recipe.log_interval or max(10, updates_per_epoch // 10),
        )


@dataclass
class Progress:
    """State of a training run: updates made, losses, evaluations and best weights so far."""

    losses: Tensor  # of the updates since the last evaluation; on the device, so that no update waits for it
    update: int = 0  # updates made
    best: Metrics = field(default_factory=dict)  # dev metrics of the best weights
    best_update: int = 0
    best_weights: dict[str, Tensor] | None = None
    history: list[dict] = field(default_factory=list)  # one entry per evaluation
    seconds: float = 0.0  # since the first update
    diverged: str | None = None  # reason for which training ended early

    @classmethod
    def begun(cls, schedule: Schedule, device: torch.device) -> "Progress":
        """The state before the first update."""
        return cls(torch.zeros(min(schedule.interval, schedule.total), device=device))

    def add(self, loss: Tensor, seconds: float) -> None:
        """Record the loss of one more update, `seconds` after the start of training."""
        self.losses[self.update % len(self.losses)] = loss
        self.update += 1
        self.seconds = seconds

    def evaluate_and_keep_best(
        self, model: nn.Module, eval_fn: Callable[[], Metrics], metric: str, schedule: Schedule
    ) -> None:
        """Evaluate the model and copy its weights if they are the best so far.

        A loss or logit that is not finite ends the training, with the best weights before it.

        Raises:
            FloatingPointError: that happens at the first evaluation, where there are no earlier weights.
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

        # an entry of the history, and a copy of the weights if there are none better
        self.losses.zero_()
        epoch = round(self.update / schedule.updates_per_epoch, 3)
        self.history.append({"update": self.update, "epoch": epoch, "loss": loss, **metrics})
        if not self.best or metrics[metric] > self.best[metric]:
            self.best = metrics
            self.best_update = self.update
            self.best_weights = {name: weight.clone() for name, weight in model.state_dict().items()}

    def is_over(self, patience: float) -> bool:
        """Whether training ends early: it diverged, or was just evaluated without a better metric for `patience`."""
        if self.diverged:
            return True
        evaluated = bool(self.history) and self.history[-1]["update"] == self.update
        return evaluated and self.update - self.best_update >= patience

    def _mean_loss(self) -> float:
        """Mean loss over the updates since the last evaluation, summed over the processes' shares.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        evaluated = self.history[-1]["update"] if self.history else 0
        losses = processes.all_reduce_sum(self.losses)[: self.update - evaluated].tolist()
        for update, loss in enumerate(losses, start=evaluated + 1):
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss of update {update} is {loss}; try a lower --learning_rate")
        return math.fsum(losses) / len(losses)

    def result(self, seconds: float) -> Result:
        """The result of a training that took so many seconds."""
        return Result(
            dev=self.best,
            best_update=self.best_update,
            updates=self.update,
            train_seconds=seconds,
            history=self.history,
            diverged=self.diverged,
        )

    def state(self) -> dict[str, Any]:
        """Content for a state file; `restored` is the inverse."""
        return {**vars(self), "losses": processes.all_reduce_sum(self.losses)}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Progress":
        """The state that `state` has returned in an earlier process of this rank."""
        if not processes.is_main():
            state["losses"].zero_()  # they are sums over all processes, which the main one holds alone
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
    pause_at: int | None = None,
) -> Result:
    """Train with evaluations at intervals and at the end, and early stopping; the model ends with its best weights.

    Args:
        model, loss_fn: model(*batch.inputs) -> logits (B, C); loss_fn(logits, batch) -> (B,).
        eval_fn: returns the model's dev metrics, of which `selection_metric` selects the best weights.
        train_state: file to save the state in, and to resume from if it exists; None saves nothing.
        log_metrics: called with each evaluation, an entry of Result.history.
        pause_at: the update, on the schedule of the full run, after which the state is saved and training pauses.

    Raises:
        FloatingPointError: the loss was not finite before the first evaluation; later, Result.diverged holds it.
        Stopped: a signal came; the update was finished and the state saved.
    """
    set_seed(recipe.seed + processes.rank())
    schedule = Schedule.of(recipe, examples)
    total, end = schedule.total, min(pause_at or schedule.total, schedule.total)

    # train only embedding rows that occur; let signals wait for the end of an update if there is a state file
    embedding_rows = seen_rows(model, examples.tokens) if recipe.exact_shortcuts else contextlib.nullcontext()
    signals = deferred() if train_state else contextlib.nullcontext(lambda: None)
    with embedding_rows as embedding, signals as stop_signal:
        updater = Updater(model, loss_fn, recipe, total, embedding.decay if embedding else None)
        progress = _restored(train_state, model, updater) or Progress.begun(schedule, updater.device)
        start = time.perf_counter() - progress.seconds
        remaining = _batches(examples, recipe, progress.update, end)
        bar = log.progress(remaining, total=total, desc="training", unit="update", done=progress.update)
        for ids in bar:
            if progress.is_over(schedule.patience):
                break
            progress.add(updater.update(examples, ids), time.perf_counter() - start)
            # evaluate on dev, and remember the weights if they are the best
            evaluated = progress.update % schedule.interval == 0 or progress.update == total
            if evaluated:
                progress.evaluate_and_keep_best(model, eval_fn, selection_metric, schedule)
                bar.set_postfix({name: f"{progress.history[-1][name]:.4f}" for name in ("loss", selection_metric)})
                if log_metrics and not progress.diverged:
                    log_metrics(progress.history[-1])
            # save the state at intervals, and before a signal ends the process
            signum = stop_signal()
            is_paused = progress.update == end < total
            if train_state and (signum or is_paused or train_state.due(progress.update, evaluated)):
                train_state.save(_state(progress, model, updater), updater.device)
            if signum:
                raise Stopped(signum, f"after update {progress.update} of {total}; the same command goes on from there")
        if progress.update < end and not progress.diverged:
            logger.info("no better %s for %d updates: stopped early", selection_metric, schedule.patience)
        model.load_state_dict(progress.best_weights)
    return progress.result(time.perf_counter() - start)


def _examples_per_update(recipe: Recipe) -> int:
    return recipe.batch_size * recipe.num_grad_accum_steps * processes.world_size()


def _batches(examples: Examples, recipe: Recipe, start: int, end: int) -> Iterator[Tensor]:
    """Example ids (n,) of the updates from number `start` to `end`; their order depends on the seed alone."""
    generator = torch.Generator().manual_seed(recipe.seed)
    labels = examples.labels.cpu()  # once, so that no epoch waits for the device
    epochs = (
        examples.epoch(_examples_per_update(recipe), generator, _epoch_rows(labels, recipe, epoch))
        for epoch in range(recipe.num_train_epochs)
    )
    return itertools.islice(itertools.chain.from_iterable(epochs), start, max(start, end))


def _epoch_rows(labels: Tensor, recipe: Recipe, epoch: int) -> Tensor:
    """Ids (n,) of the rows that an epoch takes, equally many in each."""
    return epoch_rows(labels, recipe.unlabelled_per_epoch, recipe.seed, epoch)


def _state(progress: Progress, model: nn.Module, updater: Updater) -> dict[str, Any]:
    return {"progress": progress.state(), "model": model.state_dict(), "step": updater.state()}


def _restored(train_state: StateFile | None, model: nn.Module, updater: Updater) -> Progress | None:
    """Restore model, updater and random states from the state file; None if there is nothing to resume."""
    state = train_state.load(updater.device) if train_state else None
    if state is None:
        return None
    model.load_state_dict(state["model"])
    updater.restore(state["step"])
    logger.info("going on after update %d", state["progress"]["update"])
    return Progress.restored(state["progress"])
