"""One update of the weights: forward and backward passes, gradient clipping, optimizer and learning rate schedule.

updater = Updater(student, task_loss, recipe, total=1560)
loss = updater.update(examples, ids)
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from utils import processes
from utils.batches import Examples
from utils.evaluation import autocast
from utils.recipe import Recipe

STATEFUL = ("optimizer", "scheduler", "scaler")


class Updater:
    """Optimizer, learning rate schedule and loss scaling of a model."""

    def __init__(self, model: nn.Module, loss_fn: Callable, recipe: Recipe, total: int, decay: Tensor | None = None):
        """Set up the optimizer, and a schedule over `total` updates.

        Args:
            loss_fn: (logits (B, C), batch) -> (B,).
            recipe: hyperparameters.
            total: number of updates.
            decay: scalar factor of embedding rows that are not trained, multiplied by the weight decay of each update.
        """
        from transformers import get_scheduler  # imported here: it takes a second, which --help does not wait for

        # weight decay on all weights but biases and LayerNorm
        decayed = [name for name, _ in model.named_parameters() if not name.endswith(("bias", "LayerNorm.weight"))]
        parameters = dict(model.named_parameters())
        groups = [
            {"params": [parameters[name] for name in decayed], "weight_decay": recipe.weight_decay},
            {"params": [p for name, p in parameters.items() if name not in set(decayed)], "weight_decay": 0.0},
        ]

        self.device = next(model.parameters()).device
        self.model = processes.parallel(model)
        self.loss_fn = loss_fn
        self.recipe = recipe
        self.decay = decay
        # eps 1e-6 is what the optimizer of the paper's code had; torch's own default is 1e-8
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, eps=1e-6, fused=recipe.exact_shortcuts, foreach=False
        )
        self.optimizer.register_step_post_hook(self._decay_unseen_rows)
        warmup = int(total * recipe.warmup_proportion)
        self.scheduler = get_scheduler(recipe.lr_scheduler_type, self.optimizer, warmup, total)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.dtype is torch.float16)

    def update(self, examples: Examples, ids: Tensor) -> Tensor:
        """Make one update on the examples with these ids (n,), and return their mean loss, a scalar on the device.

        The examples are split into forward passes of recipe.batch_size. With several processes, each takes every n-th
        example, and returns its share of the mean.
        """
        self.model.train()
        total = 0.0
        share = ids[processes.rank() :: processes.world_size()]
        # a process without examples runs one with a loss of 0, since all must take part in averaging the gradients
        parts = share.split(self.recipe.batch_size) if len(share) else (ids[:1],)

        # add up the gradients of all parts
        for index, part in enumerate(parts, start=1):
            batch = examples.batch(part)._replace(update=self.scheduler.last_epoch)  # the scheduler counts updates
            with processes.no_sync(self.model, backward_is_last=index == len(parts)):
                with autocast(self.model, self.recipe.dtype):
                    logits = self.model(*batch.inputs)
                # divided by the size of the whole update, so that parts of any sizes add up to its mean
                loss = self.loss_fn(logits.float(), batch).sum() * (len(share) > 0) / len(ids)
                # processes' gradients are averaged, not added
                self.scaler.scale(loss * processes.world_size()).backward()
            total += loss.detach()

        # clip them, after undoing the loss scaling, then step
        if self.recipe.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return total

    def _decay_unseen_rows(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Hook after each step of the optimizer: apply its weight decay to the embedding rows that are not trained.

        A step whose float16 gradients overflow must not decay them. The scaler does not call a plain optimizer then;
        a fused one skips the step itself if `found_inf` is set, a tensor that is read on the device without waiting.
        """
        if self.decay is None:
            return
        found_inf = getattr(optimizer, "found_inf", None)
        factor = 1 - optimizer.param_groups[0]["lr"] * self.recipe.weight_decay
        self.decay *= factor if found_inf is None else torch.where(found_inf > 0, 1.0, factor)

    def state(self) -> dict[str, Any]:
        """State dicts of optimizer, schedule and loss scaling, by name."""
        return {name: getattr(self, name).state_dict() for name in STATEFUL}

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` returned in an earlier process."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
