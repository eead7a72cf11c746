"""One update of the weights: forward and backward passes, clipping, optimizer, learning rate.

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
    """Updates of the weights: forward and backward passes, clipping, optimizer, learning rate."""

    def __init__(self, model: nn.Module, loss_fn: Callable, recipe: Recipe, total: int, decay: Tensor | None = None):
        """Optimizer and schedule over `total` updates; `decay` is that of embedding rows that are not trained."""
        from transformers import get_scheduler  # takes a second, which --help and bad input need not wait for

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
        """Learn from these examples, in passes of the recipe's batch size; their mean loss, on the device.

        Of several processes, each learns from its share of the examples, and the loss is its share of the mean.
        """
        self.model.train()
        total = 0.0
        share = ids[processes.rank() :: processes.world_size()]
        parts = share.split(self.recipe.batch_size) if len(share) else (ids[:1],)  # all take part in the averaging
        for index, part in enumerate(parts, start=1):
            batch = examples.batch(part)
            with processes.no_sync(self.model, backward_is_last=index == len(parts)):
                with autocast(self.model, self.recipe.dtype):
                    logits = self.model(*batch.inputs)
                # a share of the whole update's mean, so that parts of any size add up to one large batch
                loss = self.loss_fn(logits.float(), batch).sum() * (len(share) > 0) / len(ids)
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
        """Go on from another updater's state."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
