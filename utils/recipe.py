"""The hyperparameters of training."""

from typing import NamedTuple

import torch


class Recipe(NamedTuple):
    """Hyperparameters of utils.training.fit; the defaults are the paper's for RTE."""

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
    unlabelled_per_epoch: int | None = None  # rows without a label that an epoch takes; None takes all
    dtype: torch.dtype | None = None  # of autocast; None is float32
    exact_shortcuts: bool = True  # train only embedding rows that occur, use fused AdamW; the results are equal
