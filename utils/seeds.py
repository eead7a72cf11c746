"""Seed all random number generators."""

import random

import numpy as np
import torch


def set_seed(seed: int) -> None:
    """Seed the generators of Python, numpy, and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
